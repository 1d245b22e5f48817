"""Which request heads are taken at all: refuses whatever an upstream could read differently from us.

The HTTP parser has already refused bare line feeds, Content-Length beside Transfer-Encoding and a second Host.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?", re.ASCII)
_SHADOWED: Final = frozenset(
    {
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "forwarded",
        "host",
        "proxy-authorization",
        "proxy-connection",
        "transfer-encoding",
        "via",
        "x-api-key",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "x-request-id",
        "x-request-timeout-ms",
    }
)
"""Servers that turn headers into variables read `X_Forwarded_For` as these."""


class Unacceptable(Exception):
    """The head is refused with this status; the message is for the client."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def check_head(
    method: str, version: tuple[int, int], headers: Mapping[str, str], names: Iterable[tuple[bytes, bytes]]
) -> None:
    """Raise Unacceptable unless every reader agrees on this head. `names` are its raw header lines."""
    if method not in METHODS:
        raise Unacceptable(501, "This method is not supported.")
    if version not in ((1, 1), (1, 0)):
        raise Unacceptable(505, "Send HTTP/1.1.")
    host = headers.get("Host", "" if version == (1, 1) else "-")
    if not _HOST.fullmatch(host):
        raise Unacceptable(400, "The Host header is missing or malformed.")
    _check_framing(version, headers)
    if "Upgrade" in headers:
        raise Unacceptable(501, "Protocol upgrades (WebSocket, h2c) are not supported.")
    if headers.get("Expect", "100-continue").lower() != "100-continue":
        raise Unacceptable(417, "The only expectation that can be met is 100-continue.")
    if headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Unacceptable(415, "Send the body without Content-Encoding.")
    for name, _ in names:
        if b"_" in name and name.decode("latin-1").replace("_", "-").lower() in _SHADOWED:
            raise Unacceptable(400, "A header name with underscores stands for another header.")


def _check_framing(version: tuple[int, int], headers: Mapping[str, str]) -> None:
    encoding = headers.get("Transfer-Encoding")
    if encoding is None:
        return
    if version == (1, 0):
        raise Unacceptable(400, "HTTP/1.0 has no Transfer-Encoding.")
    if encoding.strip(" \t").lower() != "chunked":
        raise Unacceptable(501, "Transfer-Encoding must be chunked.")
    if "Content-Length" in headers:
        raise Unacceptable(400, "Content-Length and Transfer-Encoding exclude each other.")

"""Which request heads are taken at all: refuses whatever an upstream could read differently from us.

The HTTP parser has already refused bare line feeds, folded lines and Content-Length beside Transfer-Encoding. An offer
to speak another protocol, such as h2c, may be ignored (RFC 9110, 7.8) and ends here; a WebSocket would only fail later.
"""

import re
from collections.abc import Mapping
from typing import Final

from edge_limiter.memo import memo
from edge_limiter.upstream.headers import connection_options

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
_JUDGED_BY: Final = frozenset(
    {"authorization", "content-encoding", "content-type", "inference-header-content-length", "x-api-key"}
)
"""What a request costs and may do is decided by these: none may end here, or its service would see another request."""


class Unacceptable(Exception):
    """The head is refused with this status; the message is for the client."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


def check_head(method: str, version: str, fields: Mapping[str, str]) -> None:
    """Raise Unacceptable unless every reader agrees on this head. `fields` has lower-case names."""
    if version not in ("1.1", "1.0"):
        raise Unacceptable(505, "Send HTTP/1.1.")
    if method not in METHODS:
        raise Unacceptable(501, "This method is not supported.")
    if not _is_host(fields.get("host", "" if version == "1.1" else "-")):
        raise Unacceptable(400, "The Host header is missing or malformed.")
    if "transfer-encoding" in fields:
        _check_encoding(version, fields)
    if "upgrade" in fields and _asks_for_websocket(fields["upgrade"]):
        raise Unacceptable(501, "WebSocket is not supported.")
    if "expect" in fields and fields["expect"].lower() != "100-continue":
        raise Unacceptable(417, "The only expectation that can be met is 100-continue.")
    if not _JUDGED_BY.isdisjoint(connection_options(fields.get("connection"))):
        raise Unacceptable(400, "Connection names an end-to-end header.")
    for name in fields:
        if "_" in name and name.replace("_", "-") in _SHADOWED:
            raise Unacceptable(400, "A header name with underscores could pass for another header.")


@memo(256)
def _is_host(host: str) -> bool:
    return _HOST.fullmatch(host) is not None


def _asks_for_websocket(upgrade: str) -> bool:
    return any(protocol.partition("/")[0].strip(" \t").lower() == "websocket" for protocol in upgrade.split(","))


def _check_encoding(version: str, fields: Mapping[str, str]) -> None:
    if version == "1.0":
        raise Unacceptable(400, "HTTP/1.0 has no Transfer-Encoding.")
    if fields["transfer-encoding"].lower() != "chunked":
        raise Unacceptable(501, "Transfer-Encoding must be chunked.")
    if "content-length" in fields:
        raise Unacceptable(400, "Content-Length and Transfer-Encoding exclude each other.")

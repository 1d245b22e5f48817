"""One request as the door understood it: its head, decoded once, and its body as it arrives."""

from collections.abc import Iterable, Mapping
from typing import Final

from edge_limiter.acceptance import Unacceptable, check_head
from edge_limiter.body import BodyBuffer
from edge_limiter.exchange import Headers
from edge_limiter.limits import DRAIN_BYTES

_ONCE: Final = frozenset(
    {
        "authorization",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "inference-header-content-length",
        "transfer-encoding",
        "x-api-key",
    }
)
"""Two of these could be read as the first by one server and as the last by another."""


class Request:
    """`fields` has lower-case names, repeated lines joined. `refusal` says why it goes no further than the door."""

    __slots__ = (
        "body",
        "fields",
        "headers",
        "is_1_0",
        "keeps_alive",
        "length",
        "method",
        "peer",
        "refusal",
        "target",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: str,
        version: str,
        headers: Headers,
        fields: Mapping[str, str],
        peer: str,
        body: BodyBuffer,
        refusal: Unacceptable | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.is_1_0 = version == "1.0"
        self.headers = headers
        self.fields = fields
        self.peer = peer
        self.body = body
        self.refusal = refusal
        self.keeps_alive = False
        length = fields.get("content-length")
        self.length = int(length) if length is not None and length.isdigit() else None

    @property
    def ends_soon(self) -> bool:
        """Whether its body is whole, or so short that it can be read to its end for the sake of the connection."""
        if self.body.is_complete:
            return True
        return self.length is not None and self.length <= DRAIN_BYTES and "expect" not in self.fields


def read_head(method: str, version: str, headers: Headers) -> tuple[dict[str, str], Unacceptable | None]:
    """The headers by lower-case name, and why this head is not taken, if it is not."""
    fields: dict[str, str] = {}
    try:
        fields = read_fields(headers)
        check_head(method, version, fields)
    except Unacceptable as refusal:
        return fields, refusal
    return fields, None


def read_fields(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Raises Unacceptable when one that must be single is not."""
    fields: dict[str, str] = {}
    for name, value in headers:
        low = name.lower()
        if low not in fields:
            fields[low] = value
        elif low in _ONCE:
            raise Unacceptable(400, "A header that must be single is there twice.")
        else:
            fields[low] = f"{fields[low]},{value}"
    return fields

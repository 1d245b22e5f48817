"""One request as the door understood it: its head, decoded once, and its body as it arrives."""

from collections.abc import Iterable, Mapping
from typing import Final

from edge_limiter.acceptance import Unacceptable
from edge_limiter.body import BodyBuffer
from edge_limiter.exchange import Headers

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


def read_fields(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The headers by lower-case name. Raises Unacceptable when one that must be single is not."""
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

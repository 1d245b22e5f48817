"""One request as the door understood it: its head, decoded once, and its body as it arrives."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from edge_limiter.acceptance import Unacceptable, check_head
from edge_limiter.body import BodyBuffer
from edge_limiter.limits import DRAIN_BYTES, LARGE_HEAD, MAX_HEAD_BYTES
from edge_limiter.memo import MEMO_LENGTH
from edge_limiter.upstream.headers import Headers

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
    """`fields` has lower-case names, repeated lines joined. `refusal` says why it goes no further than the door.

    `whole`: all its bytes, if they came in one read and it may have to be known again.
    """

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
        "whole",
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
        self.whole: bytes | None = None
        length = fields.get("content-length")
        self.length = int(length) if length is not None and length.isdigit() else None

    @property
    def has_body(self) -> bool:
        return bool(self.length) or "transfer-encoding" in self.fields

    @property
    def ends_soon(self) -> bool:
        """Whether its body is whole, or so short that it can be read to its end for the sake of the connection."""
        if self.body.is_complete:
            return True
        return self.length is not None and self.length <= DRAIN_BYTES and "expect" not in self.fields


def read_head(
    method: str, version: str, lines: Sequence[tuple[bytes, bytes]], at_most_bytes: int
) -> tuple[Headers, dict[str, str], Unacceptable | None]:
    """The headers, the same by lower-case name, and why this head is not taken, if it is not.

    `at_most_bytes`: the head has no more; only where that is too many are the lines counted.
    """
    headers: Headers = []
    fields: dict[str, str] = {}
    try:
        if at_most_bytes > MAX_HEAD_BYTES and _size(lines) > MAX_HEAD_BYTES:
            raise Unacceptable(*LARGE_HEAD)
        for line in lines:
            name, low = (_known_name if len(line[0]) <= MEMO_LENGTH else _name)(line[0])
            value = line[1].decode("latin-1").strip(" \t")
            headers.append((name, value))
            if low not in fields:
                fields[low] = value
            elif low in _ONCE:
                raise Unacceptable(400, "A header that may occur only once is repeated.")
            else:
                fields[low] = f"{fields[low]},{value}"
        check_head(method, version, fields)
    except Unacceptable as refusal:
        return headers, fields, refusal
    return headers, fields, None


def _name(raw: bytes) -> tuple[str, str]:
    """As it was written, and in lower case."""
    name = raw.decode("latin-1")
    return name, name.lower()


_known_name = functools.lru_cache(1024)(_name)


def _size(lines: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) + 4 for name, value in lines)

"""How much a client may send and how long it may take: what every connection is held to."""

from dataclasses import dataclass
from typing import Final

MAX_BODY_BYTES: Final = 1 << 20
"""What inference and metrics take, too."""
MAX_TARGET_BYTES: Final = 8 << 10
MAX_HEAD_BYTES: Final = 32 << 10
MAX_HEADERS: Final = 100
MAX_PIPELINED: Final = 32
FIELD_BYTES: Final = 256
"""About what a header takes in memory beside its own bytes: a hundred short ones take fifty times those."""
REQUEST_BYTES: Final = 512
"""The same of a whole request."""
OVERHEAD_BYTES: Final = 64 << 10
"""Chunk heads, extensions and trailers of one body may take so much, and eight times the body itself; so much and no
more may come in a row without a byte of the body, for the parser adds to a line piece by piece."""
DRAIN_BYTES: Final = 64 << 10
"""A body up to this size is read to its end after its request was refused, so that the connection can be kept."""
REPEAT_BYTES: Final = 4 << 10
"""Up to this size a refused request that comes again is known by its bytes."""
REPEAT_TRIES: Final = 64
"""Once a connection brought so many more that were not known than were, none is looked for: each look costs a µs."""
LINGER_BYTES: Final = 4 << 20
LINGER_S: Final = 2.0

MALFORMED: Final = (400, "The request is not well-formed HTTP/1.1.")
LONG_TARGET: Final = (414, f"The request target is longer than {MAX_TARGET_BYTES} bytes.")
LARGE_HEAD: Final = (431, f"The head is larger than {MAX_HEAD_BYTES} bytes or {MAX_HEADERS} fields.")
LATE_HEAD: Final = (408, "The head of the request did not arrive in time.")
NO_ROOM: Final = (503, "Too many bytes of requests are waiting in memory.")
SLOW_BODY: Final = (408, "The body did not arrive in time.")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client may take. `min_rate` is in bytes a second, over any stretch of `body_s`."""

    head_s: float = 15.0
    keepalive_s: float = 75.0
    body_s: float = 15.0
    min_rate: int = 100
    send_s: float = 60.0

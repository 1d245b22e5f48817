"""Count the units that a scoring request costs: one per text, because a list would otherwise bypass the limit.

Counting stops above every limit, and does not validate. A body that cannot be parsed costs one unit: inference has the
same parser, so it rejects the body. The time is bounded, because counting blocks the event loop.
"""

import re
from typing import Any, Final

from pydantic_core import from_json

from edge_limiter.proxy.routes import Cost
from edge_limiter.ratelimit.policy import MAX_LIMIT

TOO_MANY: Final = MAX_LIMIT + 1
"""Counting stops here."""
MAX_STRUCTURE: Final = 1 << 16
"""The number of keys plus twice the number of lists and objects. A mebibyte with this many is parsed in 20 ms."""
MAX_QUOTES: Final = 4 * TOO_MANY
_SPACE: Final = b" \t\r\n"


def cost_of(kind: Cost, body: bytes, json_length: str | None = None) -> int:
    """Return the number of texts, at least 1 and at most TOO_MANY.

    `json_length` is the header that gives the length of the JSON before a tensor's binary data.
    """
    if kind == "one":
        return 1
    if kind == "tensor" and json_length is not None and re.fullmatch("[0-9]{1,9}", json_length):
        body = body[: int(json_length)]
    if not body.lstrip(_SPACE).startswith(b"{"):
        return 1
    if len(body) > MAX_STRUCTURE and _takes_long(body):
        return TOO_MANY
    try:
        document = from_json(body)
    except ValueError:
        return 1
    return max(1, _texts(kind, document))


def _takes_long(body: bytes) -> bool:
    """Whether the body has too much structure to be parsed here. Strings are excluded only if there are few of them."""
    if _structure(body) <= MAX_STRUCTURE:
        return False
    parts = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', MAX_QUOTES)
    return len(parts) > MAX_QUOTES or _structure(b"".join(parts[::2])) > MAX_STRUCTURE


def _structure(body: bytes) -> int:
    return 2 * (body.count(b"[") + body.count(b"{")) + body.count(b":")


def _texts(kind: Cost, document: dict[str, Any]) -> int:
    if kind == "tensor":
        return _volume(document.get("inputs"))
    texts = document.get(kind)
    return min(len(texts), TOO_MANY) if isinstance(texts, list) else 1


def _volume(inputs: object) -> int:
    """Return how many texts the shape of the one input declares. Inference rejects a tensor with another number."""
    match inputs:
        case [{"shape": [int() as rows]}]:
            return min(rows, TOO_MANY)
        case [{"shape": [int() as rows, int() as columns]}]:
            return min(rows * columns, TOO_MANY)
    return 1

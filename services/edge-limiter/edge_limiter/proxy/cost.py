"""How many units a scoring request costs: one per text, or a list would be a way around the limit.

Counts only, and only until it is above every limit; whether the body is valid is for inference to say. A body that
cannot be read costs one: the parser is inference's own, which cannot read it either. What it takes is bounded, for the
loop stands still meanwhile.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from pydantic_core import from_json

from edge_limiter.proxy.routes import Cost
from edge_limiter.ratelimit.policy import MAX_LIMIT

TOO_MANY: Final = MAX_LIMIT + 1
"""Where counting stops."""
MAX_STRUCTURE: Final = 1 << 16
"""Of the body's names, and twice its lists and objects: with so many, and a mebibyte, it is read in 20 ms."""
MAX_QUOTES: Final = 4 * TOO_MANY
MAX_VISITED: Final = 4 * TOO_MANY
_SPACE: Final = b" \t\r\n"


def cost_of(kind: Cost, body: bytes, json_length: str | None = None) -> int:
    """At least one unit; as many as there are texts, up to TOO_MANY.

    `json_length` is the header by which a tensor's client says that binary data follows its JSON.
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
    """Whether it has too much structure to be read here; that of its strings is only told apart where they are few."""
    if _structure(body) <= MAX_STRUCTURE:
        return False
    parts = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"', MAX_QUOTES)
    return len(parts) > MAX_QUOTES or _structure(b"".join(parts[::2])) > MAX_STRUCTURE


def _structure(body: bytes) -> int:
    return 2 * (body.count(b"[") + body.count(b"{")) + body.count(b":")


def _texts(kind: Cost, document: dict[str, Any]) -> int:
    if kind == "tensor":
        inputs = document.get("inputs")
        return _tensors_size(inputs) if isinstance(inputs, list) else 1
    texts = document.get(kind)
    return min(len(texts), TOO_MANY) if isinstance(texts, list) else 1


class _TooMany(Exception):
    """More elements than are looked at."""


def _tensors_size(tensors: list[Any]) -> int:
    visited = 0

    def visit(elements: list[Any]) -> list[Any]:
        nonlocal visited
        visited += len(elements)
        if visited > MAX_VISITED:
            raise _TooMany
        return elements

    try:
        return min(TOO_MANY, sum(_tensor_size(tensor, visit) for tensor in visit(tensors)))
    except _TooMany:
        return TOO_MANY


_Visit = Callable[[list[Any]], list[Any]]


def _tensor_size(tensor: object, visit: _Visit) -> int:
    """The larger of what the shape claims and what the data holds, nested or flat."""
    if not isinstance(tensor, dict):
        return 1
    return max(_leaves(tensor.get("data"), visit), _volume(tensor.get("shape"), visit))


def _volume(shape: object, visit: _Visit) -> int:
    volume = 1
    for size in visit(shape) if isinstance(shape, list) else ():
        if isinstance(size, int) and 0 <= size <= 1 << 20:
            volume *= size
        if volume >= TOO_MANY:
            return TOO_MANY
    return volume


def _leaves(data: object, visit: _Visit) -> int:
    return sum(_leaves(item, visit) for item in visit(data)) if isinstance(data, list) else 1

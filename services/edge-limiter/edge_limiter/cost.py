"""How many units a scoring request costs: one per text, or a list would be a way around the limit.

Counts only, and only until it is above every limit; whether the body is valid is for inference to say. A body that
cannot be read costs one.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from edge_limiter.policy import MAX_LIMIT
from edge_limiter.routing import Cost

TOO_MANY: Final = MAX_LIMIT + 1
"""Where counting stops: a body of a mebibyte must not take the loop a second, nor its product a million digits."""


def cost_of(kind: Cost, body: bytes, json_length: str | None = None) -> int:
    """At least one unit; as many as there are texts, up to TOO_MANY.

    `json_length` is the header by which a tensor's client says that binary data follows its JSON.
    """
    if kind == "one":
        return 1
    if kind == "tensor" and json_length is not None and re.fullmatch("[0-9]{1,9}", json_length):
        body = body[: int(json_length)]
    try:
        document = _parse(body)
    except (ValueError, RecursionError):
        return 1
    return max(1, _texts(kind, document)) if isinstance(document, dict) else 1


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except json.JSONDecodeError:
        raise
    except ValueError:  # an integer of thousands of digits: none to other parsers, so it must not hide a list
        return json.loads(body, parse_int=_bounded)


def _bounded(digits: str) -> int:
    return int(digits) if len(digits) < 16 else 1 << 53


def _texts(kind: Cost, document: dict[str, Any]) -> int:
    if kind == "tensor":
        inputs = document.get("inputs")
        return _sum(map(_tensor_size, inputs)) if isinstance(inputs, list) else 1
    texts = document.get(kind)
    return min(len(texts), TOO_MANY) if isinstance(texts, list) else 1


def _tensor_size(tensor: object) -> int:
    """The larger of what the shape claims and what the data holds, nested or flat."""
    if not isinstance(tensor, dict):
        return 1
    return max(_leaves(tensor.get("data")), _volume(tensor.get("shape")))


def _volume(shape: object) -> int:
    volume = 1
    for size in shape if isinstance(shape, list) else ():
        if isinstance(size, int) and 0 <= size <= 1 << 20:
            volume *= size
        if volume >= TOO_MANY:
            return TOO_MANY
    return volume


def _leaves(data: object) -> int:
    return _sum(map(_leaves, data)) if isinstance(data, list) else 1


def _sum(counts: Iterable[int]) -> int:
    total = 0
    for count in counts:
        total += count
        if total >= TOO_MANY:
            return TOO_MANY
    return total

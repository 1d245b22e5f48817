"""How many units a scoring request costs: one per text, or a list would be a way around the limit.

Counts only; whether the body is valid is for inference to say. A body that cannot be read costs one.
"""

import json
import math
import re
from typing import Any

from edge_limiter.routing import Cost


def cost_of(kind: Cost, body: bytes, json_length: str | None = None) -> int:
    """At least one unit; as many as there are texts.

    `json_length` is the header by which a tensor's client says that binary data follows its JSON.
    """
    if kind == "one":
        return 1
    if kind == "tensor" and json_length is not None and re.fullmatch("[0-9]{1,9}", json_length):
        body = body[: int(json_length)]
    try:
        document = json.loads(body, parse_int=_bounded)
    except (ValueError, RecursionError):
        return 1
    return max(1, _texts(kind, document)) if isinstance(document, dict) else 1


def _texts(kind: Cost, document: dict[str, Any]) -> int:
    if kind == "tensor":
        inputs = document.get("inputs")
        return sum(map(_tensor_size, inputs)) if isinstance(inputs, list) else 1
    texts = document.get(kind)
    return len(texts) if isinstance(texts, list) else 1


def _tensor_size(tensor: object) -> int:
    """The larger of what the shape claims and what the data holds, nested or flat."""
    if not isinstance(tensor, dict):
        return 1
    return max(_leaves(tensor.get("data")), _volume(tensor.get("shape")))


def _volume(shape: object) -> int:
    if not isinstance(shape, list):
        return 1
    return math.prod(size for size in shape if isinstance(size, int) and 0 <= size <= 1 << 20)


def _bounded(digits: str) -> int:
    """An integer of thousands of digits is an error to Python and none to other parsers: it must not hide a list."""
    return int(digits) if len(digits) < 16 else 1 << 53


def _leaves(data: object) -> int:
    return sum(map(_leaves, data)) if isinstance(data, list) else 1

"""Which of the formats that a service can answer in its client wants most; knows none of them."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Final

_QUALITY: Final = re.compile(r"q=(0(\.[0-9]*)?|1(\.0*)?)", re.ASCII)


def preferred(accept: Iterable[str], offered: Sequence[str]) -> str:
    """One of `offered` by the lines of `Accept` (RFC 9110, 12.5.1): of those that the client wants as much as each
    other, the one that it names, and names first; the first of all where it wants none.
    """
    wanted = _ranges(accept)

    def rank(media: str) -> tuple[float, float]:
        for pattern in (media, f"{media.partition('/')[0]}/*", "*/*"):
            if pattern in wanted:
                quality, place = wanted[pattern]
                return quality, -place if quality and pattern == media else -math.inf
        return 0.0, -math.inf

    return max(offered, key=rank)


def _ranges(accept: Iterable[str]) -> dict[str, tuple[float, int]]:
    """Quality and place of each; what is said twice counts as it is said first."""
    found: dict[str, tuple[float, int]] = {}
    for place, part in enumerate(",".join(accept).lower().split(",")):
        media, *parameters = (word.strip() for word in part.split(";"))
        quality = next((word for word in parameters if word.startswith("q=")), "q=1")
        found.setdefault(media, (_quality(quality), place))
    return found


def _quality(parameter: str) -> float:
    """Between 0 and 1; what makes no sense is least."""
    match = _QUALITY.fullmatch(parameter)
    return float(match[1]) if match else 0.0

"""Remembers who was refused until a slot frees, so that a flood costs the store nothing; bounded, oldest out first.

Slots free only with time, so a refusal stays right until then, unless the policy changes: its version is in the key.
"""

from collections import OrderedDict
from typing import NamedTuple

DenyKey = tuple[int, bytes, int]
"""Policy version, limiter key, cost: a dear request can be refused where a cheap one still fits."""


class Denial(NamedTuple):
    """`until_s` is never late, so nobody is refused who would fit; `free_at_s` is never early, for Retry-After."""

    until_s: float
    free_at_s: float


class DenyCache:
    """Least recently used out first, at `size` entries."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._denials: OrderedDict[DenyKey, Denial] = OrderedDict()

    def __len__(self) -> int:
        return len(self._denials)

    def get(self, key: DenyKey, now: float) -> Denial | None:
        """The denial that still holds, if there is one."""
        denial = self._denials.get(key)
        if denial is None:
            return None
        if denial.until_s <= now:
            del self._denials[key]
            return None
        self._denials.move_to_end(key)
        return denial

    def put(self, key: DenyKey, denial: Denial) -> None:
        self._denials[key] = denial
        self._denials.move_to_end(key)
        if len(self._denials) > self._size:
            self._denials.popitem(last=False)

"""Owns the addresses that users of a load test speak for: 198.18.0.0/15, which is set aside for benchmarks."""

import itertools
from typing import Final

_FIRST: Final = (198 << 24) | (18 << 16)
_LAST: Final = _FIRST + (1 << 17) - 1
_CALLERS_AN_OFFICE: Final = 10


class Addresses:
    """Hands out client addresses, by turns with the other workers of a distributed run, so that none gets another's.

    Raises ValueError for a worker that was not expected, and when there are no more.
    """

    def __init__(self, worker: int, workers: int = 1) -> None:
        if worker >= workers:
            raise ValueError(f"this is worker {worker + 1}: give the master --expect-workers")
        self._next = itertools.count(_FIRST + 1 + worker, workers)
        self._desks: list[str] = []

    def new(self) -> str:
        number = next(self._next)
        if number >= _LAST:
            raise ValueError("198.18.0.0/15 has no address left for another user")
        return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))

    def shared(self) -> str:
        """The same one for ten callers, then another."""
        if not self._desks:
            self._desks = [self.new()] * _CALLERS_AN_OFFICE
        return self._desks.pop()

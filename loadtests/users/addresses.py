"""The client addresses of a load test: 198.18.0.0/15, which is reserved for benchmarks."""

import itertools
from typing import Final

_FIRST: Final = (198 << 24) | (18 << 16)
_LAST: Final = _FIRST + (1 << 17) - 1
_CALLERS_AN_OFFICE: Final = 10


class Addresses:
    """Assigns client addresses, disjoint between the workers of a distributed run.

    Raises ValueError for an unexpected worker, and when all addresses are assigned.
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
        """Return one address for ten callers, then the next."""
        if not self._desks:
            self._desks = [self.new()] * _CALLERS_AN_OFFICE
        return self._desks.pop()

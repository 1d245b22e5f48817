"""Bounds what all clients together, and each one alone, may hold: connections, or bytes of memory."""

from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger()

FULL_SHARES: Final = 10
"""This many clients with their full share hold everything."""


class Budget:
    """At most `limit` units. One client gets any number until half are taken, then only its share.

    The client is None for a trusted proxy, which carries many clients and has no share. `report` counts a refusal by
    reason: `full` or `share`.
    """

    def __init__(self, resource: str, limit: int, report: Callable[[str], None] = lambda _reason: None) -> None:
        self._resource = resource
        self._limit = limit
        self._share = max(1, limit // FULL_SHARES)
        self._report = report
        self._taken_by: Counter[bytes] = Counter()
        self._warned: set[str] = set()
        self.taken = 0

    def take(self, client: bytes | None, units: int = 1) -> bool:
        """Take units if the client may have so many more."""
        if self.taken + units > self._limit:
            return self._refuse("full")
        if client is not None:
            if self.taken * 2 >= self._limit and self._taken_by[client] + units > self._share:
                return self._refuse("share")
            self._taken_by[client] += units
        self.taken += units
        return True

    def give_back(self, client: bytes | None, units: int = 1) -> None:
        """Give back what `take` took."""
        self.taken -= units
        if client is not None:
            self._taken_by[client] -= units
            if not self._taken_by[client]:
                del self._taken_by[client]
        if self._warned and self.taken < 0.45 * self._limit:
            self._warned.clear()

    def _refuse(self, reason: str) -> bool:
        self._report(reason)
        if reason not in self._warned:
            self._warned.add(reason)
            log.warning(f"{self._resource} refused", reason=reason, taken=self.taken, limit=self._limit)
        return False

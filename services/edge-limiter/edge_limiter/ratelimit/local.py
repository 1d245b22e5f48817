"""This process's own admissions of the last window: the same exact log in memory, used while the store is down.

Every admission is recorded, also those that the store decided, so local decisions start from what this process has let
through. The log is bounded in keys, in charges of all keys (least recently used keys go first) and in units of one
key: beyond MAX_LIMIT units the oldest cannot change a decision.
"""

import itertools
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from edge_limiter.ratelimit.policy import MAX_LIMIT, Decision

MAX_CHARGES: Final = 500_000
"""About 54 MB. Without a bound, a policy with a window of a day would store a day of admissions."""


@dataclass(slots=True)
class _Log:
    window_s: float
    charges: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0

    def expire(self, now: float) -> int:
        """Drop expired charges and return how many there were."""
        before = len(self.charges)
        while self.charges and self.charges[0][0] <= now - self.window_s:
            self.total -= self.charges.popleft()[1]
        return before - len(self.charges)

    def reset_s(self, cost: int, limit: int, now: float) -> float:
        """Return the seconds until `cost` more units fit; if they fit now, until the oldest charge expires."""
        excess = self.total + cost - limit
        for at, charged in self.charges:
            excess -= charged
            if excess <= 0:
                return at + self.window_s - now
        return self.window_s


class InMemorySlidingLog:
    """Holds at most `max_keys` keys and `max_charges` charges."""

    def __init__(self, max_keys: int, max_charges: int = MAX_CHARGES) -> None:
        self._max_keys = max_keys
        self._max_charges = max_charges
        self._logs: OrderedDict[bytes, _Log] = OrderedDict()
        self.charges = 0

    def __len__(self) -> int:
        return len(self._logs)

    def record(self, key: bytes, units: int, window_s: float, now: float) -> None:
        """Charge `units` that have been admitted already."""
        self._charge(self._log(key, window_s, now), units, now)

    def decide(self, key: bytes, cost: int, limit: int, window_s: float, now: float) -> Decision:
        """Admit and charge `cost` units if all of them fit into `limit`."""
        log = self._log(key, window_s, now)
        allowed = log.total + cost <= limit
        if allowed:
            self._charge(log, cost, now)
        return Decision(allowed, max(0, limit - log.total), log.reset_s(cost, limit, now), "local")

    def _charge(self, log: _Log, units: int, now: float) -> None:
        log.charges.append((now, units))
        log.total += units
        self.charges += 1
        while log.total - log.charges[0][1] >= MAX_LIMIT:
            log.total -= log.charges.popleft()[1]
            self.charges -= 1
        while self.charges > self._max_charges:
            self._forget(next(iter(self._logs)))

    def _log(self, key: bytes, window_s: float, now: float) -> _Log:
        log = self._logs.get(key)
        if log is None:
            self._make_room(now)
            log = self._logs[key] = _Log(window_s)
        log.window_s = window_s
        self.charges -= log.expire(now)
        self._logs.move_to_end(key)
        return log

    def _make_room(self, now: float) -> None:
        """Evict the oldest key if the log is full. Each new key also drops up to two expired ones."""
        if len(self._logs) >= self._max_keys:
            self._forget(next(iter(self._logs)))
        for key in list(itertools.islice(self._logs, 2)):
            self.charges -= self._logs[key].expire(now)
            if not self._logs[key].charges:
                self._forget(key)

    def _forget(self, key: bytes) -> None:
        self.charges -= len(self._logs.pop(key).charges)

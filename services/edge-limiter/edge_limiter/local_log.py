"""This process's own admissions of the last window: the same exact log in memory, used while the store is away.

It is fed by every admission, whoever decided it, so a switch to local decisions starts from what this process
already let through. Bounded in keys and in admissions, of which the least recently used keys go first, and in each
key's units: of more than any limit the oldest decide nothing, and a policy that lets all pass meanwhile records on.
"""

import itertools
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edge_limiter.policy import MAX_LIMIT

MAX_CHARGES: Final = 500_000
"""Of all keys together, about 54 MB: a policy by the day would else remember a day of admissions."""


class LocalVerdict(NamedTuple):
    allowed: bool
    remaining: int
    reset_s: float


@dataclass(slots=True)
class _Log:
    window_s: float
    charges: deque[tuple[float, int]] = field(default_factory=deque)
    total: int = 0

    def expire(self, now: float) -> int:
        """How many charges went."""
        before = len(self.charges)
        while self.charges and self.charges[0][0] <= now - self.window_s:
            self.total -= self.charges.popleft()[1]
        return before - len(self.charges)


class LocalLog:
    """Keeps at most `max_keys` keys, and `max_charges` admissions of all of them: more than one key may have."""

    def __init__(self, max_keys: int, max_charges: int = MAX_CHARGES) -> None:
        self._max_keys = max_keys
        self._max_charges = max_charges
        self._logs: OrderedDict[bytes, _Log] = OrderedDict()
        self.charges = 0

    def __len__(self) -> int:
        return len(self._logs)

    def record(self, key: bytes, cost: int, window_s: float, now: float) -> None:
        """Remember an admission."""
        log = self._log(key, window_s, now)
        log.charges.append((now, cost))
        log.total += cost
        self.charges += 1
        while log.total - log.charges[0][1] >= MAX_LIMIT:
            log.total -= log.charges.popleft()[1]
            self.charges -= 1
        while self.charges > self._max_charges:
            self._forget(next(iter(self._logs)))

    def decide(self, key: bytes, cost: int, limit: int, window_s: float, now: float) -> LocalVerdict:
        """Admit `cost` units whole if they fit into `limit`, and charge them."""
        log = self._log(key, window_s, now)
        allowed = log.total + cost <= limit
        if allowed:
            self.record(key, cost, window_s, now)
        return LocalVerdict(allowed, max(0, limit - log.total), _reset_s(log, cost, limit, now))

    def _log(self, key: bytes, window_s: float, now: float) -> _Log:
        log = self._logs.get(key)
        if log is None:
            self._forget_oldest(now)
            log = self._logs[key] = _Log(window_s)
        log.window_s = window_s
        self.charges -= log.expire(now)
        self._logs.move_to_end(key)
        return log

    def _forget_oldest(self, now: float) -> None:
        """Make room for the newest, and drop a dead key or two besides, so that they do not pile up."""
        if len(self._logs) >= self._max_keys:
            self._forget(next(iter(self._logs)))
        for key in list(itertools.islice(self._logs, 2)):
            self.charges -= self._logs[key].expire(now)
            if not self._logs[key].charges:
                self._forget(key)

    def _forget(self, key: bytes) -> None:
        self.charges -= len(self._logs.pop(key).charges)


def _reset_s(log: _Log, cost: int, limit: int, now: float) -> float:
    """Seconds until the same request fits, or until the oldest charge expires if it fits already."""
    excess = log.total + cost - limit
    for at, charged in log.charges:
        excess -= charged
        if excess <= 0:
            return at + log.window_s - now
    return log.window_s

"""Decides whether a request may pass: deny cache, then the exact log in the store, then the policy's fallback.

Promise: a client is admitted at most L units in any W seconds, over all replicas, and never refused while fewer than L
are charged, except across an outage of PostgreSQL.

A request waits for a late decision rather than fall back, because local decisions are exact only within one process.
While the store is down, a policy decides locally, admits everything (`open`) or refuses everything (`closed`).
"""

import asyncio
import hashlib
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from edge_limiter.ratelimit.batcher import DecisionBatcher, Query, QueryResult, Store, StoreUnavailable
from edge_limiter.ratelimit.policy import MAX_LIMIT, Decision, Policy

REMEMBERED_KEYS: Final = 100_000
"""Clients in the deny cache, and in the log of own admissions."""
MAX_UNITS: Final = 1_000_000
"""About 32 MB. Without a bound, a policy with a window of a day would store a day of admissions."""
MAX_SHADOWS: Final = 1_024
"""Shadow policies are skipped while more decisions wait."""
SHADOW_TIMEOUT_S: Final = 1.0


class LimiterUnavailable(Exception):
    """The store is down, and the policy says to refuse meanwhile or this process's share is below the request's cost.

    Not the client's fault, so never a 429.
    """


class DenyCache:
    """Remembers refusals until a slot frees, so that a flood costs the store nothing; least recently used out first.

    Only time frees slots, so a refusal stays right until then. Limit and cost are part of the key: a cheap request may
    fit where an expensive one does not.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._times: OrderedDict[tuple[int, bytes, int], tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._times)

    def get(self, policy: Policy, key: bytes, cost: int, now: float) -> Decision | None:
        """Return the refusal that still holds, if there is one."""
        entry = (policy.limit, key, cost)
        times = self._times.get(entry)
        if times is None:
            return None
        holds_until, free_at = times
        if holds_until <= now:
            del self._times[entry]
            return None
        self._times.move_to_end(entry)
        return Decision(False, 0, free_at - now, "denied")

    def put(self, policy: Policy, key: bytes, cost: int, holds_until: float, free_at: float) -> None:
        """Remember a refusal. `holds_until` is never too late, and `free_at`, for Retry-After, never too early."""
        entry = (policy.limit, key, cost)
        self._times[entry] = (holds_until, free_at)
        self._times.move_to_end(entry)
        if len(self._times) > self._size:
            self._times.popitem(last=False)


class InMemorySlidingLog:
    """This process's own admissions of the last window: the same exact log in memory, used while the store is down.

    Every admission is recorded, also those that the store decided, so local decisions start from what this process has
    let through. A key has one time per unit, and at most MAX_LIMIT: older ones cannot change a decision. Over
    `max_keys` keys or `max_units` units, the least recently used keys go first.
    """

    def __init__(self, max_keys: int, max_units: int = MAX_UNITS) -> None:
        self._max_keys = max_keys
        self._max_units = max_units
        self._logs: OrderedDict[bytes, list[float]] = OrderedDict()
        self.units = 0

    def __len__(self) -> int:
        return len(self._logs)

    def record(self, key: bytes, units: int, window_s: float, now: float) -> None:
        """Charge `units` that have been admitted already."""
        log = self._live(key, window_s, now)
        log += [now] * units
        self.units += units
        self._drop_first(log, len(log) - MAX_LIMIT)
        while len(self._logs) > self._max_keys or self.units > self._max_units:
            self.units -= len(self._logs.popitem(last=False)[1])

    def decide(self, key: bytes, cost: int, limit: int, window_s: float, now: float) -> Decision:
        """Admit and charge `cost` units, at most `limit`, if all of them fit."""
        log = self._live(key, window_s, now)
        allowed = len(log) + cost <= limit
        if allowed:
            self.record(key, cost, window_s, now)
        excess = len(log) + cost - limit  # so many must expire before `cost` more fit
        reset_s = log[max(0, excess - 1)] + window_s - now
        return Decision(allowed, max(0, limit - len(log)), reset_s, "local")

    def _live(self, key: bytes, window_s: float, now: float) -> list[float]:
        """Return the key's log without what has expired."""
        log = self._logs.setdefault(key, [])
        self._logs.move_to_end(key)
        self._drop_first(log, bisect_right(log, now - window_s))
        return log

    def _drop_first(self, log: list[float], units: int) -> None:
        if units > 0:
            del log[:units]
            self.units -= units


class Limiter:
    """The limits of one process. `hash_key` must be equal on all replicas."""

    def __init__(
        self,
        store: Store,
        *,
        timeout_s: float = 1.0,
        hash_key: bytes = b"",
        now: Callable[[], float] = time.monotonic,
        replicas: Callable[[], int] = lambda: 1,
        observe_s: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._batcher = DecisionBatcher(
            store, timeout_s=timeout_s, now=now, on_result=self._remember, observe_s=observe_s
        )
        self._hash_key = hashlib.sha256(hash_key).digest() if hash_key else b""
        self._now = now
        self._replicas = replicas
        self._denied = DenyCache(REMEMBERED_KEYS)
        self._own = InMemorySlidingLog(REMEMBERED_KEYS)

    async def run(self) -> None:
        """Serve decisions until cancelled."""
        await self._batcher.run()

    def key(self, policy: Policy, bucket: bytes) -> bytes:
        """Return the (keyed) hash under which a client's admissions are stored, so that rows hold no address.

        Each window has its own log. During a rollout that changes it, the shorter window would drop what the longer
        one still counts.
        """
        name = b"%b\0%d\0%b" % (policy.name.encode(), policy.window_s, bucket)
        return hashlib.blake2b(name, digest_size=16, key=self._hash_key).digest()

    def denied(self, policy: Policy, key: bytes, cost: int) -> Decision | None:
        """Return a refusal that is already known. Never waits."""
        return self._denied.get(policy, key, cost, self._now())

    async def decide(self, policy: Policy, key: bytes, cost: int, timeout_s: float) -> Decision:
        """Charge `cost` units, at most the limit, all or none, waiting at most `timeout_s`. Call `denied` first.

        Raises LimiterUnavailable.
        """
        try:
            return await self._batcher.submit(policy, key, cost, timeout_s)
        except StoreUnavailable:
            return self._fall_back(policy, key, cost)

    def try_out(self, policy: Policy, key: bytes, cost: int) -> asyncio.Future[Decision] | None:
        """Charge a shadow policy; None while the store is down or so busy that requests need its queue."""
        try:
            is_busy = self._batcher.waiting >= MAX_SHADOWS
            return None if is_busy else self._batcher.submit(policy, key, cost, SHADOW_TIMEOUT_S)
        except StoreUnavailable:
            return None

    def _remember(self, policy: Policy, query: Query, result: QueryResult, passed: int, sent_s: float) -> None:
        """Record a result. The store read its clock between `sent_s` and now."""
        now = self._now()
        if passed:
            self._own.record(query.key, passed * query.cost, policy.window_s, now)
        if result.admitted < query.requests:
            self._denied.put(policy, query.key, query.cost, sent_s + result.reset_s, now + result.reset_s)

    def _fall_back(self, policy: Policy, key: bytes, cost: int) -> Decision:
        if policy.on_store_error == "closed":
            raise LimiterUnavailable
        now = self._now()
        if policy.on_store_error == "open":
            self._own.record(key, cost, policy.window_s, now)
            return Decision(True, policy.limit, 0.0, "open")
        share = -(-policy.limit // max(1, self._replicas()))
        if cost > share:
            raise LimiterUnavailable
        return self._own.decide(key, cost, share, policy.window_s, now)

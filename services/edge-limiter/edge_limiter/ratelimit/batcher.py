"""Batches decisions without a timer: one statement is in flight, and the next batch collects meanwhile.

Requests of one key share a query while their policy and cost are equal, so that the store admits whole requests only.
A request of another cost waits for the next batch, because a statement decides each key once.

Deadlines are counted in ticks of the event loop. A stalled loop does not tick, so an answer that has arrived but has
not been read is never taken for a late one.
"""

import asyncio
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from edge_limiter.ratelimit.policy import Decision, Policy

BATCH_KEYS: Final = 128
"""A batch of 256 is slower: nothing overlaps the statement."""
MAX_WAITERS: Final = 8_192
TICK_S: Final = 0.05


class StoreUnavailable(Exception):
    """The store is down, overloaded or late. Whether it charged the request is unknown."""


class Query(NamedTuple):
    """`requests` requests of one key, `cost` units each."""

    key: bytes
    requests: int
    cost: int
    limit: int
    window_s: int


class QueryResult(NamedTuple):
    """The first `admitted` of the requests may pass. `reset_s` is an upper bound until such a request fits again."""

    admitted: int
    remaining: int
    reset_s: float


class Store(Protocol):
    """Decides batches exactly, one at a time."""

    @property
    def is_up(self) -> bool: ...

    async def decide(self, queries: Sequence[Query]) -> Sequence[QueryResult]:
        """Return one result per query, in order; keys are distinct. Raises StoreUnavailable."""
        ...


@dataclass(slots=True)
class _Group:
    """Requests that share a query: their key, cost and policy are equal. Each waits until its last tick."""

    policy: Policy
    key: bytes
    cost: int
    since_s: float
    waiters: list[tuple[asyncio.Future[Decision], int]] = field(default_factory=list)

    def query(self) -> Query:
        return Query(self.key, len(self.waiters), self.cost, self.policy.limit, self.policy.window_s)

    def resolve(self, result: QueryResult) -> int:
        """Admit in order of arrival, counting `remaining` down, and return how many requests were let through."""
        passed = 0
        for index, (decision, _) in enumerate(self.waiters):
            if not decision.done():
                allowed = index < result.admitted
                remaining = result.remaining + max(0, result.admitted - 1 - index) * self.cost
                decision.set_result(Decision(allowed, remaining, result.reset_s, "store"))
                passed += allowed
        return passed

    def fail(self, error: Exception, tick: float = math.inf) -> None:
        """Fail the requests that may not wait beyond this tick."""
        for decision, last_tick in self.waiters:
            if last_tick <= tick and not decision.done():
                decision.set_exception(error)


OnResult = Callable[[Policy, Query, QueryResult, int, float], None]
"""Policy, query, result, requests that were let through, and when the statement was sent."""


class DecisionBatcher:
    """The queue in front of the store. `observe_s` is called with the longest wait of each statement's requests."""

    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        store: Store,
        *,
        timeout_s: float,
        now: Callable[[], float],
        on_result: OnResult,
        observe_s: Callable[[float], None],
    ) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._now = now
        self._on_result = on_result
        self._observe_s = observe_s
        self._waiting: dict[tuple[bytes, int, int], _Group] = {}
        self._in_flight: list[_Group] = []
        self.waiting = 0
        self._ticks = 0
        self._wake = asyncio.Event()

    def submit(self, policy: Policy, key: bytes, cost: int, timeout_s: float) -> asyncio.Future[Decision]:
        """Return the store's decision to come, which fails with StoreUnavailable after the shorter time limit.

        The wait may last two ticks longer and is never shorter. Raises StoreUnavailable if waiting makes no sense.
        """
        if not self._store.is_up or self.waiting >= MAX_WAITERS:
            raise StoreUnavailable
        decision: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        last_tick = self._ticks + int(min(timeout_s, self._timeout_s) / TICK_S) + 2
        group = self._waiting.get((key, cost, policy.limit))
        if group is None:
            group = self._waiting[key, cost, policy.limit] = _Group(policy, key, cost, self._now())
        group.waiters.append((decision, last_tick))
        self.waiting += 1
        self._wake.set()
        return decision

    async def run(self) -> None:
        """Serve the queue until cancelled; the requests still waiting then fail with StoreUnavailable."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._schedule_tick()
                while self._waiting:
                    if batch := self._take():
                        await self._decide(batch)
                self._stop_ticking()
        finally:
            self._stop_ticking()
            for group in self._groups():
                group.fail(StoreUnavailable())

    def _take(self) -> list[_Group]:
        """Return the first groups in order of arrival, one of each key, without the requests that no longer wait."""
        batch: dict[bytes, _Group] = {}
        for group in self._waiting.values():
            batch.setdefault(group.key, group)
            if len(batch) == BATCH_KEYS:
                break
        for group in batch.values():
            del self._waiting[group.key, group.cost, group.policy.limit]
            self.waiting -= len(group.waiters)
            group.waiters = [waiter for waiter in group.waiters if not waiter[0].done()]
        return [group for group in batch.values() if group.waiters]

    async def _decide(self, batch: list[_Group]) -> None:
        queries = [group.query() for group in batch]
        sent_s = self._now()
        self._in_flight = batch
        try:
            results = await self._store.decide(queries)
        except Exception as error:
            for group in batch:
                group.fail(error)
            return
        self._observe_s(self._now() - batch[0].since_s)
        for group, query, result in zip(batch, queries, results, strict=True):
            self._on_result(group.policy, query, result, group.resolve(result), sent_s)

    def _groups(self) -> Iterable[_Group]:
        return itertools.chain(self._in_flight, self._waiting.values())

    def _schedule_tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _stop_ticking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._ticks += 1
        for group in self._groups():
            group.fail(StoreUnavailable(), self._ticks)
        self._schedule_tick()

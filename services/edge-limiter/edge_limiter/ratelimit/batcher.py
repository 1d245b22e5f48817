"""Batches decisions without a timer: one statement is in flight, and the next batch collects meanwhile.

Requests of one key share a query while their policy and cost are equal, so that the store admits whole requests only.
A request of another cost waits for the next batch, because a statement decides each key once.

Deadlines are counted in ticks of the event loop. A stalled loop does not tick, so an answer that has arrived but has
not been read is never taken for a late one.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
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


class _Waiter(NamedTuple):
    policy: Policy
    cost: int
    since_s: float
    last_tick: int
    decision: asyncio.Future[Decision]


OnResult = Callable[[Policy, Query, QueryResult, int, float], None]
"""Policy, query, result, requests that were let through, and when the statement was sent."""
Observe = Callable[[float], None]
_Batch = dict[bytes, list[_Waiter]]


class DecisionBatcher:
    """The queue in front of the store."""

    _timer: asyncio.TimerHandle | None = None

    def __init__(
        self,
        store: Store,
        *,
        timeout_s: float,
        now: Callable[[], float],
        on_result: OnResult,
        observe_keys: Observe,
        observe_wait_s: Observe,
    ) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._now = now
        self._on_result = on_result
        self._observe_keys = observe_keys
        self._observe_wait_s = observe_wait_s
        self._waiting: _Batch = {}
        self._in_flight: _Batch = {}
        self._count = 0
        self._ticks = 0
        self._wake = asyncio.Event()

    def submit(self, policy: Policy, key: bytes, cost: int, timeout_s: float) -> asyncio.Future[Decision]:
        """Return the store's decision to come, which fails with StoreUnavailable after the shorter time limit.

        The wait may last two ticks longer and is never shorter. Raises StoreUnavailable if waiting makes no sense.
        """
        if not self._store.is_up or self._count >= MAX_WAITERS:
            raise StoreUnavailable
        decision: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        last_tick = self._ticks + int(min(timeout_s, self._timeout_s) / TICK_S) + 2
        waiter = _Waiter(policy, cost, self._now(), last_tick, decision)
        waiters = self._waiting.get(key)
        if waiters is None:
            self._waiting[key] = [waiter]
        else:
            waiters.append(waiter)
        self._count += 1
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
            for waiters in itertools.chain(self._in_flight.values(), self._waiting.values()):
                _fail(waiters, StoreUnavailable())

    def _take(self) -> _Batch:
        """Return the first keys in order of arrival, each with the waiters that can share a query."""
        batch: _Batch = {}
        rest: _Batch = {}
        for key in list(itertools.islice(self._waiting, BATCH_KEYS)):
            waiters = self._waiting.pop(key)
            self._count -= len(waiters)
            shared, others = _split(waiters)
            if shared:
                batch[key] = shared
            if others:
                rest[key] = others
                self._count += len(others)
        if rest:
            self._waiting = rest | self._waiting
        return batch

    async def _decide(self, batch: _Batch) -> None:
        queries = [
            Query(key, len(waiters), waiters[0].cost, waiters[0].policy.limit, waiters[0].policy.window_s)
            for key, waiters in batch.items()
        ]
        sent_s = self._now()
        self._in_flight = batch
        try:
            results = await self._store.decide(queries)
        except Exception as error:
            for waiters in batch.values():
                _fail(waiters, error)
            return
        self._observe_keys(len(batch))
        self._observe_wait_s(self._now() - min(waiters[0].since_s for waiters in batch.values()))
        for query, waiters, result in zip(queries, batch.values(), results, strict=True):
            passed = _resolve(waiters, result)
            self._on_result(waiters[0].policy, query, result, passed, sent_s)

    def _schedule_tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _stop_ticking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        self._ticks += 1
        for waiters in itertools.chain(self._in_flight.values(), self._waiting.values()):
            for waiter in waiters:
                if waiter.last_tick <= self._ticks and not waiter.decision.done():
                    waiter.decision.set_exception(StoreUnavailable())
        self._schedule_tick()


def _split(waiters: list[_Waiter]) -> tuple[list[_Waiter], list[_Waiter]]:
    """Return the live waiters that share the first one's policy and cost, and the other live ones."""
    live = [waiter for waiter in waiters if not waiter.decision.done()]
    shared: list[_Waiter] = []
    others: list[_Waiter] = []
    for waiter in live:
        is_shared = waiter.cost == live[0].cost and waiter.policy is live[0].policy
        (shared if is_shared else others).append(waiter)
    return shared, others


def _resolve(waiters: list[_Waiter], result: QueryResult) -> int:
    """Admit in order of arrival, counting `remaining` down, and return how many requests were let through."""
    passed = 0
    for index, waiter in enumerate(waiters):
        if waiter.decision.done():
            continue
        allowed = index < result.admitted
        later_units = max(0, result.admitted - 1 - index) * waiter.cost
        waiter.decision.set_result(Decision(allowed, result.remaining + later_units, result.reset_s, "store"))
        passed += allowed
    return passed


def _fail(waiters: list[_Waiter], error: Exception) -> None:
    for waiter in waiters:
        if not waiter.decision.done():
            waiter.decision.set_exception(error)

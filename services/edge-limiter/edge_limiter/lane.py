"""Batches decisions without a timer: one statement in flight, and the next batch collects meanwhile.

Waiters of one key are summed when their policy and cost are equal, so that the store can admit whole requests only;
those of another cost wait for the next batch, so a key takes as many batches as it has costs, whatever their order.
Refuses to queue without bound, or past half of a waiter's time: the store gets the other half at least, or a client
who fills the queue would have its statement, and with it everybody's connection, called late. That time runs while a
statement does and our own loop does not stand still: a wait that is not the store's says nothing of the store.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from edge_limiter.policy import Policy
from edge_limiter.stopwatch import Stopwatch

MAX_WAITERS: Final = 8_192
_TICKS: Final = 8  # in a waiter's time: a loop that stands still for less goes unseen


class StoreUnavailable(Exception):
    """The store did not decide in time, or cannot be reached; whether it charged is unknown."""


class Ask(NamedTuple):
    """`requests` requests of one key, `cost` units each."""

    key: bytes
    requests: int
    cost: int
    limit: int
    window_s: int


class Verdict(NamedTuple):
    """Of the requests asked for, the first `admitted` go. `reset_s`: until such a request fits again, at most."""

    admitted: int
    remaining: int
    reset_s: float


class Store(Protocol):
    """Decides batches exactly. One statement at a time; `is_up` says whether asking makes sense now."""

    @property
    def is_up(self) -> bool: ...

    async def decide(self, asks: Sequence[Ask], timeout_s: float) -> Sequence[Verdict]:
        """One verdict per ask, in order. Raises StoreUnavailable."""
        ...


class Answer(NamedTuple):
    """What one waiter hears. The store read its clock between `asked_s` and now."""

    allowed: bool
    remaining: int
    reset_s: float
    asked_s: float


class _Waiter(NamedTuple):
    """`deadline_s` is by the store's own time, `since_s` by the clock."""

    policy: Policy
    cost: int
    since_s: float
    deadline_s: float
    answer: asyncio.Future[Answer]


class Lane:
    """The queue in front of one store connection. A key must always use the same lane."""

    def __init__(
        self,
        store: Store,
        *,
        timeout_s: float,
        batch_keys: int,
        now: Callable[[], float],
        on_batch: Callable[[int, float], None],
    ) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._batch_keys = batch_keys
        self._now = now
        self._on_batch = on_batch
        self._asking = Stopwatch(timeout_s / _TICKS, now)
        self._waiting: dict[bytes, list[_Waiter]] = {}
        self._count = 0
        self._wake = asyncio.Event()

    def ask(self, policy: Policy, key: bytes, cost: int) -> asyncio.Future[Answer]:
        """The store's answer to come. Raises StoreUnavailable at once, or when awaited, after the time limit."""
        if not self._store.is_up or self._count >= MAX_WAITERS:
            raise StoreUnavailable
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(policy, cost, self._now(), self._asking.read_s() + self._timeout_s, answer)
        waiters = self._waiting.get(key)
        if waiters is None:
            self._waiting[key] = [waiter]
        else:
            waiters.append(waiter)
        self._count += 1
        self._wake.set()
        return answer

    async def run(self) -> None:
        """Serve the queue until cancelled; whoever still waits then hears StoreUnavailable."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while batch := self._take():
                    await self._decide(batch)
        finally:
            for waiters in self._waiting.values():
                _fail(waiters, StoreUnavailable())

    def _take(self) -> dict[bytes, list[_Waiter]]:
        """The first keys in order of arrival, each with the waiters whose policy and cost are the first one's."""
        batch: dict[bytes, list[_Waiter]] = {}
        left: dict[bytes, list[_Waiter]] = {}
        soonest_s = self._asking.read_s() + self._timeout_s / 2
        for key in list(itertools.islice(self._waiting, self._batch_keys)):
            waiters = self._waiting.pop(key)
            self._count -= len(waiters)
            same, others = _split(waiters, soonest_s)
            if same:
                batch[key] = same
            if others:
                left[key] = others
        if left:
            self._count += sum(map(len, left.values()))
            self._waiting = left | self._waiting
        if not batch and self._waiting:
            return self._take()
        return batch

    async def _decide(self, batch: dict[bytes, list[_Waiter]]) -> None:
        asks = [
            Ask(key, len(waiters), waiters[0].cost, waiters[0].policy.limit, waiters[0].policy.window_s)
            for key, waiters in batch.items()
        ]
        asked_s = self._now()
        deadline_s = min(waiters[0].deadline_s for waiters in batch.values())
        patience_s = deadline_s - self._asking.read_s()
        self._asking.start()
        try:
            verdicts = await self._store.decide(asks, patience_s)
        except Exception as error:
            for waiters in batch.values():
                _fail(waiters, error)
            return
        finally:
            self._asking.stop()
        self._on_batch(len(batch), self._now() - min(waiters[0].since_s for waiters in batch.values()))
        for waiters, verdict in zip(batch.values(), verdicts, strict=True):
            _tell(waiters, verdict, asked_s)


def _split(waiters: list[_Waiter], soonest_s: float) -> tuple[list[_Waiter], list[_Waiter]]:
    """Those that share the first one's policy and cost, and the others; who must know before `soonest_s` hears now."""
    same: list[_Waiter] = []
    others: list[_Waiter] = []
    for waiter in waiters:
        if waiter.answer.done():
            continue  # its client has gone
        if waiter.deadline_s < soonest_s:
            waiter.answer.set_exception(StoreUnavailable())
        elif not same or (waiter.cost == same[0].cost and waiter.policy is same[0].policy):
            same.append(waiter)
        else:
            others.append(waiter)
    return same, others


def _tell(waiters: list[_Waiter], verdict: Verdict, asked_s: float) -> None:
    """First come, first admitted; `remaining` counts down as if each had been asked alone."""
    for index, waiter in enumerate(waiters):
        if waiter.answer.done():
            continue
        allowed = index < verdict.admitted
        later = max(0, verdict.admitted - 1 - index) * waiter.cost
        waiter.answer.set_result(Answer(allowed, verdict.remaining + later, verdict.reset_s, asked_s))


def _fail(waiters: list[_Waiter], error: Exception) -> None:
    for waiter in waiters:
        if not waiter.answer.done():
            waiter.answer.set_exception(error)

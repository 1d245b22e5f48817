"""Shares one computation among equal queries and bounds how many run at once."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from common.contracts.aggregates import Aggregate, AggregateRequest
from metrics.query.aggregate import Aggregates

FRESH_S: Final = 1.0  # how long a result is reused
_AT_ONCE: Final = 2
_STORED: Final = 256


class _Stored(NamedTuple):
    answer: "asyncio.Task[Aggregate]"
    until_s: float


class SharedAggregates:
    """Wraps `aggregates`. A computation continues if one of its callers leaves."""

    def __init__(self, aggregates: Aggregates, *, timeout_s: float, now: Callable[[], float]) -> None:
        self._aggregates = aggregates
        self._timeout_s = timeout_s
        self._now = now
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._stored: OrderedDict[str, _Stored] = OrderedDict()

    async def answer(self, request: AggregateRequest) -> Aggregate:
        """Return the aggregate. Raises InvalidField, StoreUnavailable, and TimeoutError while others take too long."""
        key = request.model_dump_json()
        stored = self._stored.get(key)
        if stored is None or (stored.answer.done() and (self._now() >= stored.until_s or _failed(stored.answer))):
            task = asyncio.create_task(self._compute(request))
            task.add_done_callback(_retrieve)
            stored = self._stored[key] = _Stored(task, self._now() + FRESH_S)
            self._stored.move_to_end(key)
            self._forget_oldest()
        return await asyncio.shield(stored.answer)

    def forget(self) -> None:
        """Drop finished results, because the rules changed."""
        self._stored = OrderedDict((key, stored) for key, stored in self._stored.items() if not stored.answer.done())

    async def close(self) -> None:
        """Cancel all computations."""
        for stored in self._stored.values():
            stored.answer.cancel()
        await asyncio.gather(*(stored.answer for stored in self._stored.values()), return_exceptions=True)

    async def _compute(self, request: AggregateRequest) -> Aggregate:
        async with asyncio.timeout(self._timeout_s), self._slots:
            return await self._aggregates.answer(request)

    def _forget_oldest(self) -> None:
        """Drop the oldest finished results. Running computations are bounded by the requests in flight."""
        for key in list(self._stored)[: max(0, len(self._stored) - _STORED)]:
            if self._stored[key].answer.done():
                del self._stored[key]


def _failed(task: "asyncio.Task[Aggregate]") -> bool:
    return task.cancelled() or task.exception() is not None


def _retrieve(task: "asyncio.Task[Aggregate]") -> None:
    """Mark an exception as retrieved, because all callers may have left."""
    if not task.cancelled():
        task.exception()

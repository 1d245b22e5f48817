"""Equal queries share one computation, and few run at once."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from common.contracts.aggregates import Aggregate, AggregateRequest
from metrics.api.examples import AGGREGATE
from metrics.errors import StoreUnavailable
from metrics.query.aggregate import Aggregates
from metrics.query.shared import FRESH_S, SharedAggregates

FIVE, HOUR = AggregateRequest(window="5m"), AggregateRequest(window="1h")


class Counted:
    """Counts computations, which finish when released."""

    def __init__(self) -> None:
        self.asked: list[AggregateRequest] = []
        self.released = asyncio.Event()
        self.running = self.most = 0

    async def answer(self, request: AggregateRequest) -> Aggregate:
        self.asked.append(request)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.released.wait()
        finally:
            self.running -= 1
        if request.bucket == "1d":
            raise StoreUnavailable
        return AGGREGATE


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def shared(counted: Counted, clock: Callable[[], float]) -> SharedAggregates:
    return SharedAggregates(cast(Aggregates, counted), timeout_s=20, now=clock)


async def test_crowd__costs_one_computation_until_the_answer_is_old(
    shared: SharedAggregates, counted: Counted, clock: Any
) -> None:
    counted.released.set()
    answers = await asyncio.gather(*(shared.answer(FIVE) for _ in range(50)), shared.answer(HOUR))
    assert answers == [AGGREGATE] * 51
    await shared.answer(FIVE)
    assert len(counted.asked) == 2
    clock.now_s += FRESH_S
    await shared.answer(FIVE)
    assert len(counted.asked) == 3


async def test_reader_that_leaves__does_not_cancel_the_answer_of_others(
    shared: SharedAggregates, counted: Counted
) -> None:
    leaving, staying = (asyncio.create_task(shared.answer(FIVE)) for _ in range(2))
    while not counted.running:
        await asyncio.sleep(0)
    leaving.cancel()
    counted.released.set()
    assert await staying == AGGREGATE
    assert len(counted.asked) == 1


async def test_different_questions__run_two_at_a_time(shared: SharedAggregates, counted: Counted) -> None:
    windows: list[Any] = ["5m", "15m", "1h", "6h", "24h", "7d"]
    asking = [asyncio.create_task(shared.answer(AggregateRequest(window=window))) for window in windows]
    while not counted.running:
        await asyncio.sleep(0)
    counted.released.set()
    await asyncio.gather(*asking)
    assert (counted.most, len(counted.asked)) == (2, 6)


async def test_failure__is_not_given_again(shared: SharedAggregates, counted: Counted) -> None:
    counted.released.set()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await shared.answer(AggregateRequest(window="30d", bucket="1d"))
    assert len(counted.asked) == 2


async def test_close__cancels_what_is_computed(shared: SharedAggregates, counted: Counted) -> None:
    asking = asyncio.create_task(shared.answer(FIVE))
    while not counted.running:
        await asyncio.sleep(0)
    await shared.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert counted.running == 0

"""All followers share one computation, and each of them can end."""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from common.contracts.aggregates import Aggregate
from metrics.errors import StoreUnavailable, TooManyFollowers, TooManyOfOneClient
from metrics.query.aggregate import Aggregates
from metrics.query.broadcast import AggregateBroadcaster
from metrics.query.rollups import Rollups
from metrics.storage.database import Database


class CountedAggregates(Aggregates):
    """Counts computations. `hold` delays them until it is set; `begun` is set when the first starts.

    They fail while `is_away`.
    """

    answers = 0
    is_away = False
    hold: asyncio.Event | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.begun = asyncio.Event()

    async def answer(self, request: Any) -> Aggregate:
        self.answers += 1
        self.begun.set()
        if self.hold:
            await self.hold.wait()
        if self.is_away:
            raise StoreUnavailable("ConnectionRefusedError")
        return await super().answer(request)


@pytest.fixture
def aggregates(database: Database, clock: Callable[[], float]) -> CountedAggregates:
    async def lag_s() -> float:
        return clock()

    return CountedAggregates(Rollups(database), lag_s, now=clock)


@pytest.fixture
def live(aggregates: Aggregates) -> AggregateBroadcaster:
    return AggregateBroadcaster(aggregates, interval_s=1, max_followers=3)


async def test_followers_of_a_window__share_one_computation(
    live: AggregateBroadcaster, aggregates: CountedAggregates
) -> None:
    with live.following("5m", "a") as one, live.following("5m", "b") as other, live.following("1h", "c") as third:
        await live.publish()
        assert await anext(one) is await anext(other)
        assert b'"thresholds"' in (await anext(third) or b"")
    assert aggregates.answers == 2


async def test_slow_follower__gets_the_newest_only(live: AggregateBroadcaster, clock: Any) -> None:
    with live.following("5m", "a") as messages:
        for _ in range(3):
            clock.now_s += 1
            await live.publish()
        message = await anext(messages)
        assert message is not None
        assert Aggregate.model_validate_json(message).lag_s == clock()


async def test_nobody_following__computes_nothing(live: AggregateBroadcaster, aggregates: CountedAggregates) -> None:
    with live.following("5m", "a"):
        pass
    await live.publish()
    assert aggregates.answers == 0


async def test_who_leaves_while_it_is_computed__leaves_nothing_to_the_next(
    live: AggregateBroadcaster, aggregates: CountedAggregates, clock: Any
) -> None:
    with live.following("5m", "a"):
        aggregates.hold = asyncio.Event()
        publishing = asyncio.ensure_future(live.publish())
        await aggregates.begun.wait()
    aggregates.hold.set()
    await publishing
    clock.now_s += 60
    with live.following("5m", "a") as messages:
        message = asyncio.ensure_future(anext(messages))
        await live.publish()
        assert Aggregate.model_validate_json(await message or b"").lag_s == clock()


async def test_rounds_that_compute_nothing__keep_no_heartbeat_back(aggregates: CountedAggregates) -> None:
    live = AggregateBroadcaster(aggregates, interval_s=1, max_followers=3, heartbeat_s=0.05)
    aggregates.is_away = True
    with live.following("5m", "a") as messages:
        message = asyncio.ensure_future(anext(messages))
        async with asyncio.timeout(20):
            while not message.done():
                await live.publish()
                await asyncio.sleep(0)
        assert await message is None


async def test_stop__ends_the_messages_of_all(live: AggregateBroadcaster) -> None:
    with live.following("5m", "a") as messages:
        waiting = asyncio.ensure_future(anext(messages, b"over"))
        live.stop()
        assert await waiting == b"over"


async def test_more_followers_than_there_is_room_for__are_refused_until_one_leaves(live: AggregateBroadcaster) -> None:
    with live.following("5m", "a"), live.following("1h", "b"):
        with live.following("5m", "c"), pytest.raises(TooManyFollowers), live.following("5m", "d"):
            pass
        with live.following("5m", "d"):
            pass


@pytest.mark.parametrize(("places", "share"), [(1, 1), (19, 1), (20, 2), (100, 10)])
async def test_one_client__has_a_tenth_of_the_places_and_one_at_least(
    aggregates: Aggregates, places: int, share: int
) -> None:
    live = AggregateBroadcaster(aggregates, interval_s=1, max_followers=places)
    with ExitStack() as stack:
        for _ in range(share):
            stack.enter_context(live.following("5m", "one"))
        with pytest.raises(TooManyOfOneClient), live.following("1h", "one"):
            pass
        for number in range(places - share):
            stack.enter_context(live.following("5m", f"other {number}"))
    with live.following("5m", "one"):
        pass

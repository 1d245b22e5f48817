"""Tests of when a worker makes a new engine and of what that must be, with the scripted engine."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

import pytest

from inference.batching.admission import Limits
from inference.batching.batcher import Batcher, BatchingConfig
from inference.batching.jobs import Job, Scored
from inference.batching.worker import Restarts, WorkerEvent
from inference.engines.base import Answer, EngineClient
from inference.engines.thread import ThreadClient

SIZES: Final = BatchingConfig(1, 64, Limits(1 << 20, 60.0))


Create = Callable[[], Awaitable[EngineClient]]


async def story_of_a_death(stage: Any, create: Create, change: Callable[[], None]) -> list[WorkerEvent]:
    """All that befalls the one worker whose engine breaks after `change`, until it serves again or gives up."""
    events: list[WorkerEvent] = []
    over = asyncio.Event()

    def tell(event: WorkerEvent) -> None:
        events.append(event)
        if event.what in ("gave up", "restarted"):
            over.set()

    restarts = Restarts(backoff_s=0.0001, attempts=2)
    batcher = Batcher(create, SIZES, time.monotonic, on_worker=tell, restarts=restarts)
    await batcher.start()
    change()
    stage.break_scores = 2  # the text and the probe
    batcher.submit(["good"], time.monotonic() + 60.0)
    async with asyncio.timeout(60):
        await over.wait()
    await batcher.close()
    return events


async def test_model_that_was_replaced_meanwhile__is_for_a_new_process_to_serve(stage: Any) -> None:
    """What is cached, recorded and told of is the model that this process began with."""

    def replace_model() -> None:
        stage.card = replace(stage.card, revision="r2")

    events = await story_of_a_death(stage, stage.host, replace_model)
    assert [event.what for event in events] == ["died", "cannot restart", "cannot restart", "gave up"]
    assert {event.cause for event in events[1:3]} == {"ModelChanged"}
    assert stage.closed == stage.made == 3


async def test_engine_whose_making_panics__is_given_up_like_any_that_cannot_be_made(stage: Any) -> None:
    def make() -> Any:
        if stage.made:
            raise SystemExit("no Exception, as a panic of a library is none")
        return stage.make()

    events = await story_of_a_death(stage, lambda: ThreadClient.start(make), lambda: None)
    assert [event.what for event in events] == ["died", "cannot restart", "cannot restart", "gave up"]


async def test_engine_that_cannot_be_made__is_tried_again_after_twice_as_long_each_time(stage: Any) -> None:
    tries_s: list[float] = []

    async def make() -> EngineClient:
        tries_s.append(time.monotonic())
        if len(tries_s) > 1:
            raise RuntimeError
        return await stage.host()  # type: ignore[no-any-return]

    gave_up = asyncio.Event()
    restarts = Restarts(backoff_s=0.01, attempts=4)
    batcher = Batcher(
        make,
        SIZES,
        time.monotonic,
        on_worker=lambda event: gave_up.set() if event.what == "gave up" else None,
        restarts=restarts,
    )
    await batcher.start()
    stage.break_scores = 2  # the text and the probe
    batcher.submit(["good"], time.monotonic() + 60.0)
    async with asyncio.timeout(60):
        await gave_up.wait()
    await batcher.close()
    waited_s = [later - earlier for earlier, later in pairwise(tries_s[1:])]
    assert all(waited >= 0.99 * 0.02 * 2**number for number, waited in enumerate(waited_s))
    assert len(waited_s) == 3


class HalfDeaf(Batcher):
    """The lane that works ahead ends, as none ever should."""

    async def take(self, *, ahead: bool) -> list[Job]:
        if ahead:
            raise asyncio.CancelledError
        return await super().take(ahead=ahead)


async def test_worker_of_which_a_lane_has_ended__is_lost(stage: Any) -> None:
    batcher = HalfDeaf(stage.host, replace(SIZES, lanes=2), time.monotonic)
    await batcher.start()
    for _ in range(10):
        await asyncio.sleep(0)
    assert batcher.is_lost
    await batcher.close()


async def test_time_that_a_restart_took__is_not_what_a_batch_costs(stage: Any) -> None:
    """Else a service that has just come back would refuse for a while what it can answer."""
    clock = [100.0]

    def take_long(event: WorkerEvent) -> None:
        if event.what == "died":
            clock[0] += 1000.0

    batcher = Batcher(stage.host, SIZES, lambda: clock[0], on_worker=take_long, restarts=Restarts(backoff_s=0.0001))
    await batcher.start()
    stage.break_scores = 2  # the text and the probe
    [job] = batcher.submit(["good"], 10_000.0)
    async with asyncio.timeout(30):
        await job.future
    batcher.desk.admit([1000], 10_000.0, 1)  # so that there is a wait to predict
    assert batcher.desk.wait_s < 100.0  # of 2400
    await batcher.close()


class Mortal(ThreadClient):
    """Its engine can end as a process does."""

    async def score(self, texts: Sequence[str]) -> Answer:
        if self.lost.is_set():
            raise RuntimeError("gone")
        return await super().score(texts)


class Play:
    """A worker of two lanes whose engines can be ended."""

    def __init__(self, stage: Any, *, all_end: bool = False, min_uptime_s: float = 60.0) -> None:
        self._make = stage.make
        self._all_end = all_end
        self._told: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.hosts: list[Mortal] = []
        self.batcher = Batcher(
            self._start,
            replace(SIZES, lanes=2),
            time.monotonic,
            on_worker=self._emit,
            restarts=Restarts(backoff_s=0.0001, attempts=2, min_uptime_s=min_uptime_s),
        )

    async def _start(self) -> EngineClient:
        self.hosts.append(await Mortal.start(self._make))
        return self.hosts[-1]

    def _emit(self, event: WorkerEvent) -> None:
        self._told.put_nowait((event.what, self.batcher.state))
        if event.what == "restarted" and self._all_end:
            self.end()

    def end(self) -> None:
        self.hosts[-1].lost.set()

    async def told(self, events: int) -> list[tuple[str, str]]:
        """The next events, each with the state of the batcher at that moment."""
        async with asyncio.timeout(60):
            return [await self._told.get() for _ in range(events)]

    async def score(self) -> Job:
        """A job that has its outcome."""
        [job] = self.batcher.submit(["good"], time.monotonic() + 60.0)
        async with asyncio.timeout(60):
            assert isinstance(await job.future, Scored)
        return job


@pytest.fixture
async def play(stage: Any) -> AsyncIterator[Callable[..., Awaitable[Play]]]:
    """Call it for a worker that has started."""
    async with AsyncExitStack() as closing:

        async def started(**options: Any) -> Play:
            made = Play(stage, **options)
            closing.push_async_callback(made.batcher.close)
            await made.batcher.start()
            return made

        yield started


async def test_engine_that_ends_while_nobody_asks_it_anything__shows_and_is_replaced(play: Any) -> None:
    playing = await play()
    playing.end()
    assert await playing.told(2) == [("died", "failed"), ("restarted", "ok")]
    assert len(playing.hosts) == 2
    await playing.score()


async def test_text_that_comes_as_the_engine_ends__is_not_charged_for_it(play: Any) -> None:
    playing = await play()
    scoring = asyncio.create_task(playing.score())
    await asyncio.sleep(0)  # it is submitted, and no lane has woken yet
    playing.end()
    assert (await scoring).attempts == 0
    assert len(playing.hosts) == 2


async def test_engines_that_end_before_they_score_anything__are_given_up(play: Any) -> None:
    """Making one after the other would keep a core busy for good, and nobody would notice."""
    playing = await play(all_end=True)
    playing.end()
    events = await playing.told(6)
    assert [what for what, _ in events] == ["died", "restarted", "died", "restarted", "died", "gave up"]
    assert playing.batcher.state == "failed"


async def test_engine_that_stood_for_a_while__is_replaced_however_many_ended_before(play: Any) -> None:
    playing = await play(min_uptime_s=0.0)
    for _ in range(5):
        playing.end()
        assert [what for what, _ in await playing.told(2)] == ["died", "restarted"]


async def test_engine_that_broke_in_a_batch__is_not_watched_any_more(play: Any, stage: Any) -> None:
    playing = await play()
    stage.break_scores = 2  # the text and the probe
    await playing.score()
    assert [host.lost.is_set() for host in playing.hosts] == [True, False]


async def test_engine_that_has_scored_a_text__is_replaced_however_many_ended_before(play: Any) -> None:
    playing = await play()
    for _ in range(5):
        playing.end()
        assert [what for what, _ in await playing.told(2)] == ["died", "restarted"]
        await playing.score()


async def test_engine_that_dies_on_every_batch__is_given_up(play: Any) -> None:
    playing = await play()
    deadline_s = time.monotonic() + 60.0
    jobs = [job for _ in range(3) for job in playing.batcher.submit(["killer"], deadline_s)]
    events = [what for what, _ in await playing.told(6)]
    assert events == ["died", "restarted", "died", "restarted", "died", "gave up"]
    assert not jobs[-1].future.done()

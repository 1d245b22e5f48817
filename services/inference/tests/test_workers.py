"""Tests of what a worker's new engine must be, with the scripted engine."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Final

from inference.admission import Limits
from inference.batcher import Batcher, Sizes
from inference.engine import Host
from inference.thread_host import ThreadHost
from inference.workers import Restarts, WorkerEvent

SIZES: Final = Sizes(1, 64, Limits(1 << 20, 60.0))


Create = Callable[[], Awaitable[Host]]


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

    events = await story_of_a_death(stage, lambda: ThreadHost.start(make), lambda: None)
    assert [event.what for event in events] == ["died", "cannot restart", "cannot restart", "gave up"]


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

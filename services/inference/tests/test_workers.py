"""Tests of what a worker's new engine must be, with the scripted engine."""

import asyncio
import time
from dataclasses import replace
from typing import Any

from inference.admission import Limits
from inference.batcher import Batcher, Sizes
from inference.workers import Restarts, WorkerEvent


async def test_model_that_was_replaced_meanwhile__is_for_a_new_process_to_serve(stage: Any) -> None:
    """What is cached, recorded and told of is the model that this process began with."""
    events: list[WorkerEvent] = []
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(event: WorkerEvent) -> None:
        events.append(event)
        if event.what in ("gave up", "restarted"):
            loop.call_soon_threadsafe(gone.set)

    restarts = Restarts(backoff_s=0.0001, attempts=2)
    sizes = Sizes(1, 64, Limits(1 << 20, 60.0))
    batcher = Batcher(stage.make, sizes, time.monotonic, on_worker=tell, restarts=restarts)
    await batcher.start()
    stage.card = replace(stage.card, revision="r2")
    stage.break_scores = 2  # the text and the probe
    batcher.submit(["good"], time.monotonic() + 30.0)
    async with asyncio.timeout(30):
        await gone.wait()
    await batcher.close()
    assert [event.what for event in events] == ["died", "cannot restart", "cannot restart", "gave up"]
    assert {event.cause for event in events[1:3]} == {"ModelChanged"}
    assert stage.closed == stage.made == 3

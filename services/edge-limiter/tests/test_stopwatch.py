import asyncio
import time
from collections.abc import Callable

import pytest
import uvloop

from edge_limiter.stopwatch import Stopwatch

STILL_S = 0.2


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("turns", [0, 3])
def test_time_in_which_the_loop_stands_still__does_not_count(
    loop: Callable[[], asyncio.AbstractEventLoop], turns: int
) -> None:
    async def measure() -> tuple[float, float]:
        watch, started_s = Stopwatch(0.01, time.monotonic), time.monotonic()
        watch.start()
        time.sleep(STILL_S)  # noqa: ASYNC251  # the loop stands still
        for _ in range(turns):  # the timer that was due comes, or not yet
            await asyncio.sleep(0)
        read_s = watch.read_s()
        watch.stop()
        return read_s, time.monotonic() - started_s

    with asyncio.Runner(loop_factory=loop) as runner:
        read_s, took_s = runner.run(measure())
    assert 0.0 <= read_s <= took_s - STILL_S + 0.011


async def test_stopwatch__runs_only_between_start_and_stop() -> None:
    now = [0.0]
    watch = Stopwatch(60.0, lambda: now[0])
    for now[0], act in ((1.0, watch.start), (3.0, watch.stop), (10.0, watch.start), (11.0, watch.stop)):
        act()
    now[0] = 20.0
    assert watch.read_s() == 3.0

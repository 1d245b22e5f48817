"""Background tasks: owning one for as long as a service runs, and ending one for good."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

log = structlog.get_logger()

RETRY_S: Final = 0.1


@asynccontextmanager
async def supervised(
    work: Coroutine[Any, Any, None],
    name: str,
    fatal: asyncio.Event,
    *,
    stop: Callable[[], None] | None = None,
    drain_s: float = 0.0,
) -> AsyncIterator[None]:
    """Run `work`, which never ends by itself, beside the block: when it does end, log why and set `broken`.

    After the block it is cancelled; where `stop` asks it to finish, only once it took longer than `drain_s`.
    """

    def ended(task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        log.error("background task ended", task=name, exc_info=error)
        fatal.set()

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(ended)
    try:
        yield
    finally:
        task.remove_done_callback(ended)
        if stop is not None:
            stop()
            await asyncio.wait([task], timeout=drain_s)
        await cancel_and_wait(task)


async def cancel_and_wait(task: "asyncio.Task[Any]") -> None:
    """Cancel `task` and wait until it is over; its error, if it had one, stays with it.

    One cancellation is not enough on Python 3.11: `asyncio.wait_for`, which the Redis client uses, swallows it when
    what it waits for is done in the same turn of the loop (gh-86296), and a task that loops would go on for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=RETRY_S)

"""Background tasks that live as long as the service, and reliable cancellation."""

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
    """Run `work` during the block. It must not end by itself: if it does, log the reason and set `fatal`.

    After the block it is cancelled. With `stop`, which makes it finish, it first has `drain_s` to do so.
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
    """Cancel `task` and wait until it has ended. Its error is not raised.

    On Python 3.11 `asyncio.wait_for`, which redis-py uses, loses a cancellation if its result arrives in the same
    iteration of the loop (gh-86296), so this cancels repeatedly.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=RETRY_S)

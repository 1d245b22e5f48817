"""Background tasks: ending one for good."""

import asyncio
from typing import Any, Final

RETRY_S: Final = 0.1


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel `task` and wait until it is over; its error, if it had one, stays with it.

    One cancellation is not enough on Python 3.11: `asyncio.wait_for`, which the Redis client uses, swallows it when
    what it waits for is done in the same turn of the loop (gh-86296), and a task that loops would go on for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=RETRY_S)

"""Runs this package's Lua scripts on Redis; decides nothing. Each script may run twice, so each must bear that."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

Script = Callable[[list[str], list[str]], Awaitable[Any]]


def load_script(redis: Redis, name: str) -> Script:
    """`lua/<name>.lua` as a function of its KEYS and ARGV. It raises REDIS_ERRORS."""
    script = redis.register_script(resources.files("analyst").joinpath(f"lua/{name}.lua").read_text())

    async def run(keys: list[str], args: list[str]) -> Any:
        try:
            try:
                return await script(keys=keys, args=args)
            except RedisConnectionError:  # a pooled connection from before a restart
                return await script(keys=keys, args=args)
        finally:
            heed_cancellation()

    return run


def heed_cancellation() -> None:
    """Raise the cancellation that the client may have lost: it sends through `asyncio.wait_for`, which on Python 3.11
    returns normally when its work is done in the moment of the cancellation. A task that goes on would never end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError

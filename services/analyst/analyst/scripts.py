"""Lua scripts on Redis. Each may run twice, because a lost connection repeats the command."""

import asyncio
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

Script = Callable[[list[str], list[str]], Awaitable[Any]]


def load_script(redis: Redis, name: str) -> Script:
    """Return `lua/<name>.lua` as a function of KEYS and ARGV. It raises REDIS_ERRORS."""
    script = redis.register_script(resources.files("analyst").joinpath(f"lua/{name}.lua").read_text())

    async def run(keys: list[str], args: list[str]) -> Any:
        try:
            try:
                return await script(keys, args)
            except RedisConnectionError:  # a pooled connection from before a restart
                return await script(keys, args)
        finally:
            raise_if_cancelled()

    return run


def raise_if_cancelled() -> None:
    """Raise a cancellation that redis-py lost.

    On Python 3.11 `asyncio.wait_for` returns normally when its work completes at the moment of the cancellation.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError

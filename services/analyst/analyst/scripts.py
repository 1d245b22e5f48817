"""Runs this package's Lua scripts on Redis; decides nothing. Each script may run twice, so each must bear that."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

Script = Callable[[list[str], list[str]], Awaitable[Any]]


def load_script(redis: Redis, name: str) -> Script:
    """`lua/<name>.lua` as a function of its KEYS and ARGV. It raises REDIS_ERRORS."""
    source = _scripts()[name]
    sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def once(keys: list[str], args: list[str]) -> Any:
        try:
            return await redis.evalsha(sha, len(keys), *keys, *args)
        except NoScriptError:
            return await redis.eval(source, len(keys), *keys, *args)

    async def run(keys: list[str], args: list[str]) -> Any:
        try:
            try:
                return await once(keys, args)
            except RedisConnectionError:  # a pooled connection from before a restart
                return await once(keys, args)
        finally:
            raise_if_cancelled()

    return run


async def load_all(redis: Redis) -> None:
    """Send every script, so that none is sent when somebody waits for it. Raises REDIS_ERRORS."""
    for source in _scripts().values():
        await redis.script_load(source)
        raise_if_cancelled()


def raise_if_cancelled() -> None:
    """Raise the cancellation that the client may have lost: it sends through `asyncio.wait_for`, which on Python 3.11
    returns normally when its work is done in the moment of the cancellation. A task that goes on would never end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _scripts() -> dict[str, str]:
    folder = resources.files("analyst").joinpath("lua")
    return {file.name.removesuffix(".lua"): file.read_text() for file in folder.iterdir() if file.name.endswith(".lua")}

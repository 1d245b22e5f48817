"""Entries, leases and completions in Redis: one Lua script per decision, one subscription per process.

Keys are hash-tagged, so that a cluster stores an entry and its lease in one slot. All times are Redis's own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from analyst.cache.single_flight import Completion, Entered, Lifetime, StoreUnavailable
from analyst.scripts import Script, load_script, raise_if_cancelled
from common.stores.redis import REDIS_ERRORS

log = structlog.get_logger()

PREFIX: Final = "analyst:report:"
CHANNEL: Final = "analyst:flights"
DONE: Final = "done "
ENDED: Final = "ended "
INVALIDATED: Final = "invalidated "
_SCAN_PAGE: Final = 500
_IDLE_S: Final = 10.0
_RECONNECT_S: Final = (0.2, 1.0)


class RedisFlightStore:
    """The FlightStore that all replicas share."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._enter = self._script("enter")
        self._commit = self._script("commit")
        self._fail = self._script("fail")
        self._renew = self._script("renew")
        self._release = self._script("release")
        self._invalidate = self._script("invalidate")

    async def enter(self, key: str, token: str, lease_s: float) -> Entered:
        state, payload, number_ms = await self._enter([_entry(key), _lease(key)], [token, _ms(lease_s)])
        if state == "WAIT":
            return Entered("WAIT", lease_s=max(0, number_ms) / 1000, owner=payload)
        if state == "FAILED":
            return Entered("FAILED", failure=payload)
        return Entered(state, payload, age_s=max(0, number_ms) / 1000)

    async def commit(self, key: str, token: str, payload: str, lifetime: Lifetime) -> bool:
        times = [_ms(lifetime.fresh_s), _ms(lifetime.serve_s), _ms(lifetime.keep_s)]
        keys = [_entry(key), _lease(key)]
        return bool(await self._commit(keys, [token, payload, *times, CHANNEL, DONE + key]))

    async def fail(self, key: str, token: str, code: str, retry_s: float) -> bool:
        keys = [_entry(key), _lease(key)]
        return bool(await self._fail(keys, [token, code, _ms(retry_s), CHANNEL, ENDED + key]))

    async def renew(self, key: str, token: str, lease_s: float) -> bool:
        return bool(await self._renew([_lease(key)], [token, _ms(lease_s)]))

    async def release(self, key: str, token: str) -> None:
        await self._release([_lease(key)], [token, CHANNEL, ENDED + key])

    async def invalidate_all(self) -> int:
        """Revoke every lease and delete every entry, by SCAN in pages. Return the number of deleted results.

        No result of an earlier computation survives. Leases go first, and a result that was stored during the first
        scan is found by the second.
        """
        dropped = 0
        try:
            for name_of in (_lease, _entry):
                async for name in self._redis.scan_iter(match=name_of("*"), count=_SCAN_PAGE):
                    key = name.partition("{")[2].partition("}")[0]
                    dropped += await self._invalidate([_entry(key), _lease(key)], [CHANNEL, INVALIDATED + key])
        except REDIS_ERRORS as error:
            raise StoreUnavailable(type(error).__name__) from error
        return dropped

    def _script(self, name: str) -> Script:
        script = load_script(self._redis, name)

        async def run(keys: list[str], args: list[str]) -> Any:
            try:
                return await script(keys, args)
            except REDIS_ERRORS as error:
                raise StoreUnavailable(type(error).__name__) from error

        return run


@dataclass(frozen=True, slots=True)
class Listener:
    """Callbacks for a completed key, an invalidated key, and a new subscription, before which messages were lost."""

    ended: Callable[[str, Completion], None]
    invalidated: Callable[[str], None]
    missed: Callable[[], None]


async def listen(redis: Redis, listener: Listener, uniform: Callable[[float, float], float]) -> None:
    """Subscribe to completions until cancelled. A failure is logged once and retried at random intervals."""
    connected = True
    while True:
        try:
            await redis.initialize()  # a cluster client discovers its nodes here
            async with redis.pubsub() as channel:
                await channel.subscribe(CHANNEL)
                async for message in _messages(channel):
                    if message["type"] == "subscribe" and not connected:
                        connected = True
                        log.info("cache reachable again")
                    _dispatch(listener, message)
        except Exception as error:
            if connected:
                connected = False
                unexpected = None if isinstance(error, REDIS_ERRORS) else error
                name = type(error).__name__
                log.warning("cache unreachable: reports are not stored", error=name, exc_info=unexpected)
            await asyncio.sleep(uniform(*_RECONNECT_S))


async def _messages(channel: PubSub) -> AsyncIterator[dict[str, Any]]:
    """Yield messages. A silent connection is pinged, and fails if the ping gets no reply."""
    pinged = False
    while True:
        raise_if_cancelled()
        try:
            message = await channel.get_message(timeout=_IDLE_S)
        except ResponseError:  # a server whose disk failed rejects even a ping
            if not pinged:
                raise
            pinged = False
            continue
        if message is not None:
            pinged = False
            yield message
        elif pinged:
            raise RedisConnectionError("no answer to a ping")
        else:
            pinged = True
            await channel.ping()


def _dispatch(listener: Listener, message: dict[str, Any]) -> None:
    if message["type"] == "subscribe":
        listener.missed()
    elif message["type"] == "message":
        text: str = message["data"]
        if text.startswith(DONE):
            key, token, payload = text.removeprefix(DONE).split(" ", 2)
            listener.ended(key, Completion(token, payload))
        elif text.startswith(ENDED):
            listener.ended(text.removeprefix(ENDED), Completion())
        elif text.startswith(INVALIDATED):
            listener.invalidated(text.removeprefix(INVALIDATED))


def _entry(key: str) -> str:
    return f"{PREFIX}{{{key}}}:entry"


def _lease(key: str) -> str:
    return f"{PREFIX}{{{key}}}:lease"


def _ms(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))

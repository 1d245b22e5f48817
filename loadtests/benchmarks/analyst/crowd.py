"""One process of a crowd that requests one report concurrently, through one of four caches.

    python crowd.py CONTENDER REDIS_HOST REDIS_PORT REDIS_PASSWORD REQUESTS

It connects, prints `ready`, waits for a line, asks, prints JSON, and waits for a line again before it disconnects.
"""

import asyncio
import gc
import hashlib
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import uvloop
from redis.asyncio import Redis

UPSTREAM_S: Final = 1.0
TTL_S: Final = 300

Ask = Callable[[], Awaitable[Any]]

calls = 0


async def upstream() -> str:
    """The expensive call. Every result is different."""
    global calls
    calls += 1
    await asyncio.sleep(UPSTREAM_S)
    return json.dumps({"call": secrets.token_hex(8), "report": "x" * 4000})


@asynccontextmanager
async def sluice(host: str, port: int, password: str) -> AsyncIterator[Ask]:
    import random

    from analyst.cache.redis_store import Listener, RedisFlightStore, listen
    from analyst.cache.single_flight import Computed, Limits, SingleFlightCache

    redis = Redis(host=host, port=port, password=password, decode_responses=True, protocol=3)
    flights = SingleFlightCache(
        RedisFlightStore(redis),
        Limits(TTL_S, 3600, 5, 3, 60, 60, 64),
        now=time.monotonic,
        uniform=random.uniform,
        new_token=lambda: secrets.token_hex(8),
        on_error=lambda error: None,
    )
    heard = asyncio.Event()
    listening = asyncio.create_task(listen(redis, Listener(flights.wake, flights.forget, heard.set), random.uniform))
    await heard.wait()

    async def compute(_may_spend: bool) -> Computed:
        return Computed(await upstream())

    await redis.ping()
    yield lambda: flights.get("report", compute)
    await flights.close()
    listening.cancel()
    await asyncio.wait([listening])
    await redis.aclose()


@asynccontextmanager
async def redis_lock(host: str, port: int, password: str) -> AsyncIterator[Ask]:
    """A cache as redis-py's documentation suggests: get, lock, get again, compute."""
    redis = Redis(host=host, port=port, password=password, decode_responses=True, max_connections=2000)

    async def ask() -> str:
        if found := await redis.get("report"):
            return str(found)
        async with redis.lock("report:lock", timeout=30, blocking_timeout=60):
            if found := await redis.get("report"):
                return str(found)
            made = await upstream()
            await redis.set("report", made, ex=TTL_S)
            return made

    await redis.ping()
    yield ask
    await redis.aclose()


@asynccontextmanager
async def cashews(host: str, port: int, password: str) -> AsyncIterator[Ask]:
    from cashews import Cache

    cache = Cache()
    cache.setup(f"redis://:{password}@{host}:{port}/0", max_connections=2000, wait_for_connection_timeout=60)

    @cache(ttl=TTL_S, key="report", lock=True)
    async def ask() -> str:
        return await upstream()

    await cache.ping()
    yield ask
    await cache.close()


@asynccontextmanager
async def aiocache(host: str, port: int, password: str) -> AsyncIterator[Ask]:
    from aiocache import Cache, cached_stampede
    from aiocache.serializers import JsonSerializer

    options = {"endpoint": host, "port": port, "password": password, "serializer": JsonSerializer()}

    @cached_stampede(lease=30, ttl=TTL_S, key="report", cache=Cache.REDIS, timeout=60, pool_max_size=2000, **options)
    async def ask() -> str:
        return await upstream()

    yield ask
    await ask.cache.close()


CONTENDERS: Final = {"sluice": sluice, "redis-lock": redis_lock, "cashews": cashews, "aiocache": aiocache}


async def main(contender: str, host: str, port: int, password: str, requests: int) -> None:
    loop = asyncio.get_running_loop()
    async with CONTENDERS[contender](host, port, password) as ask:
        gc.collect()
        gc.freeze()  # as our services do; a collection during a crowd would take 30 ms
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)
        seconds: list[float] = []
        answers: set[str] = set()
        failed = 0

        async def one() -> None:
            nonlocal failed
            started = time.perf_counter()
            try:
                answers.add(str(getattr(answer := await ask(), "payload", answer)))
            except Exception:
                failed += 1
            else:
                seconds.append(time.perf_counter() - started)

        await asyncio.gather(*(one() for _ in range(requests)))
        hashes = sorted(hashlib.sha256(answer.encode()).hexdigest() for answer in answers)
        print(json.dumps({"calls": calls, "failed": failed, "answers": hashes, "seconds": seconds}), flush=True)
        await loop.run_in_executor(None, sys.stdin.readline)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(arguments[0], arguments[1], int(arguments[2]), arguments[3], int(arguments[4])))

"""Print the decisions per second of another exact limiter as JSON.

peers.py {pyrate,limits,limits-async} URL SECONDS SETTING

SETTING is the number of threads, or for `limits-async` the number of concurrent decisions. Runs in the environment
`limiters` of `benchmarks/peers.py`.
"""

import asyncio
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable

import uvloop
from limits import RateLimitItemPerSecond
from limits.aio.storage import RedisStorage as AsyncRedisStorage
from limits.aio.strategies import MovingWindowRateLimiter as AsyncMovingWindow
from limits.storage import RedisStorage
from limits.strategies import MovingWindowRateLimiter
from psycopg_pool import ConnectionPool
from pyrate_limiter import Duration, Rate, RateItem
from pyrate_limiter.buckets import PostgresBucket

KEYS, LIMIT = 5_000, 1_000  # per second
NAMES = [f"client-{number}" for number in range(KEYS)]


def in_threads(decide: Callable[[int], bool], threads: int, seconds: float) -> int:
    """Return the admissions in `seconds`. `decide` takes the number of a key."""
    numbers = itertools.cycle(range(KEYS))
    admitted = [0] * threads
    until = time.perf_counter() + seconds

    def work(thread: int) -> None:
        while time.perf_counter() < until:
            admitted[thread] += decide(next(numbers))

    workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(admitted)


def pyrate(url: str, seconds: float, threads: int) -> int:
    """Each client has a bucket, which is a table. `Limiter` is left out: its lock admits one thread at a time."""
    with ConnectionPool(url, min_size=threads, max_size=threads) as pool:
        buckets = [PostgresBucket(pool, name.replace("-", "_"), [Rate(LIMIT, Duration.SECOND)]) for name in NAMES]

        def decide(number: int) -> bool:
            bucket = buckets[number]
            return bool(bucket.put(RateItem(NAMES[number], bucket.now())))

        return in_threads(decide, threads, seconds)


def limits(url: str, seconds: float, threads: int) -> int:
    limiter, item = MovingWindowRateLimiter(RedisStorage(url)), RateLimitItemPerSecond(LIMIT)
    return in_threads(lambda number: limiter.hit(item, NAMES[number]), threads, seconds)


def limits_async(url: str, seconds: float, waiting: int) -> int:
    return uvloop.run(_limits_async(url, seconds, waiting))


async def _limits_async(url: str, seconds: float, waiting: int) -> int:
    storage = AsyncRedisStorage(f"async+{url}", implementation="redispy", max_connections=waiting)
    limiter, item = AsyncMovingWindow(storage), RateLimitItemPerSecond(LIMIT)
    numbers = itertools.cycle(range(KEYS))
    until = time.perf_counter() + seconds

    async def ask() -> int:
        admitted = 0
        while time.perf_counter() < until:
            admitted += await limiter.hit(item, NAMES[next(numbers)])
        return admitted

    return sum(await asyncio.gather(*(ask() for _ in range(waiting))))


if __name__ == "__main__":
    run = {"pyrate": pyrate, "limits": limits, "limits-async": limits_async}[sys.argv[1]]
    seconds = float(sys.argv[3])
    print(json.dumps({"per_second": run(sys.argv[2], seconds, int(sys.argv[4])) / seconds}))

"""Print the decisions per second of our limiter, or of its SQL statement run once per request, as JSON.

ours.py {ours,single} DATABASE_URL SECONDS SETTING

SETTING is the number of concurrent decisions for `ours`, and the number of connections for `single`.
"""

import asyncio
import itertools
import json
import sys
import time

import asyncpg
import uvloop

from edge_limiter.ratelimit.batcher import Query
from edge_limiter.ratelimit.limiter import Limiter
from edge_limiter.ratelimit.policy import Policy
from edge_limiter.ratelimit.postgres import DECIDE, PostgresLog, columns

KEYS, LIMIT, WINDOW_S = 5_000, 1_000, 1
BUCKETS = [b"client-%d" % number for number in range(KEYS)]


async def ours(dsn: str, seconds: float, waiting: int) -> int:
    store = PostgresLog(dsn, durable=False, timeout_s=5)
    limiter = Limiter(store, timeout_s=5)
    policy = Policy("bench", LIMIT, WINDOW_S)
    tasks = [asyncio.create_task(store.run()), asyncio.create_task(limiter.run())]
    await store.wait_up()
    admitted = 0
    until = time.perf_counter() + seconds
    buckets = itertools.cycle(BUCKETS)

    async def ask() -> None:
        nonlocal admitted
        while time.perf_counter() < until:
            decision = await limiter.decide(policy, limiter.key(policy, next(buckets)), 1, 5)
            if not decision.allowed or decision.source != "store":
                raise SystemExit(f"not decided exactly: {decision}")
            admitted += 1

    await asyncio.gather(*(ask() for _ in range(waiting)))
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return admitted


async def single(dsn: str, seconds: float, connections: int) -> int:
    admitted = 0
    until = time.perf_counter() + seconds
    buckets = itertools.cycle(BUCKETS)

    async def ask() -> None:
        nonlocal admitted
        connection = await asyncpg.connect(dsn)
        statement = await connection.prepare(DECIDE)
        while time.perf_counter() < until:
            rows = await statement.fetch(*columns([Query(next(buckets), 1, 1, LIMIT, WINDOW_S)]), "off")
            admitted += rows[0]["admitted"]
        await connection.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return admitted


async def main(name: str, dsn: str, seconds: float, setting: int) -> None:
    admitted = await {"ours": ours, "single": single}[name](dsn, seconds, setting)
    print(json.dumps({"per_second": admitted / seconds}))


uvloop.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))

"""The limiter's promise under faults, in short. For the long run, see loadtests/benchmarks/limiter/exactness.py."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from benchmarks.limiter.exactness import WINDOW_US, Try, replay

from edge_limiter.ratelimit.batcher import Query
from edge_limiter.ratelimit.limiter import Limiter
from edge_limiter.ratelimit.policy import Policy
from edge_limiter.ratelimit.postgres import LATE_IN_A_ROW, PostgresLog
from launcher.postgres import Postgres
from launcher.testing import migrate

SCRIPT = Path(__file__).parents[3] / "loadtests" / "benchmarks" / "limiter" / "exactness.py"
SECONDS = os.environ.get("EXACTNESS_SECONDS", "5")
LIMIT = 20


def test_four_replicas_under_faults__neither_exceed_nor_undershoot_the_limit() -> None:
    run = subprocess.run([sys.executable, str(SCRIPT), "--seconds", SECONDS], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout)
    assert result["committed units"] >= result["admitted"] > 0
    assert result["tries checked"] > 100
    assert result["restarts"] == 2


@pytest.mark.parametrize(
    ("tries", "wrong"),
    [
        ([Try(0, 9, 1, 9), Try(WINDOW_US, 9, 1, 9)], None),
        ([Try(0, 9, 1, 9), Try(WINDOW_US - 1, 1, 1, 1)], "windows over the limit"),
        ([Try(0, 4, 2, 4), Try(1, 2, 1, 2)], "windows over the limit"),
        ([Try(0, 5, 1, 4)], "refused with room"),
        ([Try(0, 8, 1, 8), Try(1, 1, 1, 0)], "refused with room"),
        ([Try(0, 8, 1, 8), Try(1, 1, 2, 0)], None),
        ([Try(5, 1, 1, 1), Try(4, 1, 1, 1)], "clock decreased"),
    ],
)
def test_oracle__finds_each_kind_of_error(tries: list[Try], wrong: str | None) -> None:
    assert [name for name, count in replay(tries).items() if count] == ([wrong] if wrong else [])


async def test_two_fresh_edges_and_a_store_that_stalls__admit_exactly_the_limit(
    edge_database: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    policy = Policy("predict", 60, 60)
    async with AsyncExitStack() as stack:
        limiters = [await stack.enter_async_context(_open_limiter(edge_database)) for _ in range(2)]
        async with database.transaction():
            await database.execute("LOCK TABLE edge.admissions")
            key = limiters[0].key(policy, b"client")
            burst = [asyncio.create_task(limiters[n % 2].decide(policy, key, 1, 60)) for n in range(100)]
            await database.execute("SELECT pg_sleep(0.3)")
        decisions = await asyncio.gather(*burst)
    assert sum(decision.allowed for decision in decisions) == 60
    assert {decision.source for decision in decisions} == {"store"}


async def test_store_that_hangs__delays_no_request_after_three_time_limits(
    edge_database: str, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    timeout_s, policy = 0.2, Policy("predict", 60, 60)
    async with _open_limiter(edge_database, timeout_s) as limiter, database.transaction():
        await database.execute("LOCK TABLE edge.admissions")
        key = limiter.key(policy, b"client")
        waits_s: list[float] = []
        while not waits_s or waits_s[-1] > timeout_s / 2:
            started_s = time.monotonic()
            assert (await limiter.decide(policy, key, 1, 60)).source == "local"
            waits_s.append(time.monotonic() - started_s)
    assert 1 <= len(waits_s) - 1 <= LATE_IN_A_ROW


@asynccontextmanager
async def _open_limiter(dsn: str, timeout_s: float = 20.0) -> AsyncIterator[Limiter]:
    store = PostgresLog(dsn, durable=False, timeout_s=timeout_s)
    limiter = Limiter(store, timeout_s=timeout_s)
    tasks = [asyncio.create_task(store.run()), asyncio.create_task(limiter.run())]
    try:
        async with asyncio.timeout(60):
            await store.wait_up()
        yield limiter
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.mark.parametrize(("durable", "extra"), [(False, LIMIT), (True, 0)])
async def test_killed_server__forgets_at_most_one_limit_and_nothing_when_durable(
    own_postgres: Callable[[], Postgres], durable: bool, extra: int
) -> None:
    server = own_postgres()
    migrate("edge_limiter", server.url())
    log = PostgresLog(server.url(), durable=durable)
    task = asyncio.create_task(log.run())
    ask = [Query(b"k", 1, 1, LIMIT, 600)]
    await log.wait_up()
    admitted = sum([(await log.decide(ask))[0].admitted for _ in range(LIMIT)])
    server.kill()
    server.start()
    async with asyncio.timeout(20):
        while not log.is_up or await _is_stale(log):
            await asyncio.sleep(0.01)
    admitted += sum([(await log.decide(ask))[0].admitted for _ in range(2 * LIMIT)])
    assert LIMIT <= admitted <= LIMIT + extra
    task.cancel()
    await asyncio.wait([task])


async def _is_stale(log: PostgresLog) -> bool:
    """Return whether the connection is still the one to the killed server."""
    try:
        await log.decide([Query(b"probe", 1, 1, LIMIT, 600)])
    except Exception:
        return True
    return False

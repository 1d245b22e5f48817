import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

import asyncpg
import pytest
from structlog.testing import capture_logs

from common.runtime.tasks import cancel_and_wait
from common.stores.postgres import create_pool
from edge_limiter.ratelimit.housekeeping import ALIVE_S, GRACE_S, PAGE, Housekeeping

Pool: TypeAlias = "asyncpg.Pool[asyncpg.Record]"


@pytest.fixture
async def pool(edge_database: str) -> AsyncIterator[Pool]:
    async with create_pool(edge_database, schema="edge", application="test", timeout_s=60) as pool:
        yield pool


async def test_heartbeats__count_the_processes_that_live(pool: Pool) -> None:
    one, other = Housekeeping(pool, "one"), Housekeeping(pool, "other")
    await one.beat()
    await other.beat()
    await one.beat()
    assert (one.replicas, other.replicas) == (2, 2)


async def test_process_that_stopped_beating__is_forgotten(pool: Pool) -> None:
    one, other = Housekeeping(pool, "one"), Housekeeping(pool, "other")
    await other.beat()
    await pool.execute("UPDATE edge.replicas SET seen_at = seen_at - $1 * interval '1 second'", ALIVE_S + 1)
    await one.beat()
    assert one.replicas == 1
    await one.beat()
    assert await pool.fetchval("SELECT count(*) FROM edge.replicas") == 1


async def test_store_that_ceased_to_take_writes__is_left(
    edge_database: str, demoted: Callable[[str], AbstractContextManager[str]]
) -> None:
    with demoted(edge_database) as url:
        pool = await create_pool(url, schema="edge", application="test", timeout_s=60)
        await pool.execute("SELECT 1")
    housekeeping = Housekeeping(pool, "one")
    with capture_logs() as logs:
        running = asyncio.create_task(housekeeping.run())
        async with asyncio.timeout(60):
            while not logs:
                await asyncio.sleep(0.01)
        await cancel_and_wait(running)
    assert logs[0]["reason"] == "ReadOnlySQLTransactionError"
    await housekeeping.beat()
    await pool.close()


async def insert_rows(pool: Pool, prefix: str, rows: int, age_s: float) -> None:
    await pool.execute(
        "INSERT INTO edge.admissions SELECT ($1 || n)::bytea, 1, 60000000, 1, 1, edge.now_us() - $2::bigint, '{}' "
        "FROM generate_series(1, $3) n",
        prefix,
        int(age_s * 1e6),
        rows,
    )


async def test_collection__deletes_dead_rows_only(pool: Pool) -> None:
    await insert_rows(pool, "dead", 2 * PAGE + 7, 60 + GRACE_S + 1)
    await insert_rows(pool, "live", 5, 60 + GRACE_S - 30)
    assert await Housekeeping(pool, "one").collect() == 2 * PAGE + 7
    assert await pool.fetchval("SELECT count(*) FROM edge.admissions") == 5


async def test_rows_of_a_clock_that_was_set_back__are_deleted_and_its_processes_not_counted(pool: Pool) -> None:
    await insert_rows(pool, "ahead", 3, -(60 + GRACE_S + 600))
    await insert_rows(pool, "live", 5, -(60 + GRACE_S - 30))
    one, other = Housekeeping(pool, "one"), Housekeeping(pool, "other")
    await other.beat()
    await pool.execute("UPDATE edge.replicas SET seen_at = seen_at + interval '1 hour'")
    await one.beat()
    assert (one.replicas, await pool.fetchval("SELECT count(*) FROM edge.replicas")) == (1, 1)
    assert await one.collect() == 3
    assert await pool.fetchval("SELECT count(*) FROM edge.admissions") == 5


async def test_locked_row__is_left_for_the_next_round(pool: Pool) -> None:
    await insert_rows(pool, "dead", 3, 60 + GRACE_S + 1)
    async with pool.acquire() as holder, holder.transaction():
        await holder.execute("SELECT 1 FROM edge.admissions WHERE key = 'dead2' FOR UPDATE")
        assert await Housekeeping(pool, "one").collect() == 2


async def test_ping__takes_time(pool: Pool) -> None:
    assert await Housekeeping(pool, "one").ping_ms() > 0

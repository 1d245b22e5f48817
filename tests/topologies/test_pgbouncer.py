"""The limiter, ingestion and everything else through a real PgBouncer in transaction mode."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from made_up import prediction
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from system import System
from topologies.journey import TOKEN, walk
from topologies.pgbouncer import SERVER_CONNECTIONS, PgBouncer

from common.contracts.events import EVENT_FIELD, STREAM
from common.stores.postgres import create_pool
from edge_limiter.ratelimit.batcher import Query, StoreUnavailable
from edge_limiter.ratelimit.postgres import PostgresLog
from launcher.postgres import Postgres
from launcher.testing import migrate
from metrics.ingest.consumer import Consumer
from metrics.ingest.stream import StreamReader
from metrics.ingest.writer import EventWriter
from metrics.metrics import IngestionMetrics
from metrics.query.rollups import Rollups
from metrics.storage.database import Database

PACKAGES = {"edge_limiter": "edge", "metrics": "metrics", "analyst": "analyst"}
AT_S = 1_790_000_000
LIMIT = 50


@pytest.fixture
def pooled_url(pgbouncer: PgBouncer, migrated_url: Callable[..., str]) -> str:
    """A database with all tables, through PgBouncer."""
    return pgbouncer.url(urlsplit(migrated_url(*PACKAGES)).path.lstrip("/"))


@asynccontextmanager
async def opened(url: str, timeout_s: float = 20.0) -> AsyncIterator[PostgresLog]:
    log = PostgresLog(url, durable=False, timeout_s=timeout_s)
    task = asyncio.create_task(log.run())
    try:
        async with asyncio.timeout(30):
            await log.wait_up()
        yield log
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_limits_of_more_edges_than_connections__are_exact(pooled_url: str) -> None:
    keys = [b"%d" % number for number in range(5)]
    async with AsyncExitStack() as stack:
        edges = [await stack.enter_async_context(opened(pooled_url)) for _ in range(4 * SERVER_CONNECTIONS)]

        async def ask(edge: PostgresLog) -> int:
            verdicts = [await edge.decide([Query(key, 3, 1, LIMIT, 600) for key in keys]) for _ in range(10)]
            return sum(verdict.admitted for batch in verdicts for verdict in batch)

        admitted = await asyncio.gather(*map(ask, edges))
    assert sum(admitted) == LIMIT * len(keys)


async def test_ingestion_by_more_consumers_than_connections__counts_each_event_once(
    pooled_url: str, redis_settings: dict[str, Any]
) -> None:
    events = [prediction(AT_S) for _ in range(2_000)]
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis(**redis_settings, decode_responses=True, protocol=3))
        pool = create_pool(pooled_url, schema="metrics", application="test", size=8, timeout_s=20)
        database = Database(await stack.enter_async_context(pool), 20)
        for one in (*events, *events[::10]):
            await redis.xadd(STREAM, {EVENT_FIELD: one.model_dump_json(exclude_none=True)})
        consumers = [consumer(redis, database, str(number)) for number in range(2 * SERVER_CONNECTIONS)]
        running = [asyncio.create_task(each.run()) for each in consumers]
        async with asyncio.timeout(60):
            while await Rollups(database).count() < len(events):
                await asyncio.sleep(0.05)
        for each in consumers:
            each.stop()
        await asyncio.gather(*running)
        async with database.transaction() as connection:
            assert await connection.fetchval("SELECT count(*) FROM prediction") == len(events)
            assert await connection.fetchval("SELECT sum(n) FROM rollup WHERE width_s = 60") == len(events)


async def test_migrations_at_once__are_safe(pgbouncer: PgBouncer, database_url: str) -> None:
    url = pgbouncer.url(urlsplit(database_url).path.lstrip("/"))
    await asyncio.gather(*(asyncio.to_thread(migrate, package, url) for package in (*PACKAGES, "metrics")))
    connection = await asyncpg.connect(database_url)
    found = await connection.fetch("SELECT nspname FROM pg_namespace WHERE nspname = ANY($1)", list(PACKAGES.values()))
    await connection.close()
    assert len(found) == len(PACKAGES)


async def test_abandoned_decision__leaves_no_lock(pooled_url: str, postgres: Postgres) -> None:
    """PgBouncer ends the server connection of a client that leaves in the middle, and PostgreSQL notices by itself."""
    name = urlsplit(pooled_url).path.lstrip("/")
    await asyncio.to_thread(postgres.execute, f"ALTER DATABASE {name} SET client_connection_check_interval = '500ms'")
    holder = await asyncpg.connect(postgres.url(name))
    async with AsyncExitStack() as stack, asyncio.timeout(30):
        first = await stack.enter_async_context(opened(pooled_url))
        second = await stack.enter_async_context(opened(pooled_url, timeout_s=0.1))
        await first.decide([Query(b"k", 1, 1, LIMIT, 600)])
        holding = holder.transaction()
        await holding.start()
        await holder.execute("SELECT FROM edge.admissions FOR UPDATE")
        with pytest.raises(StoreUnavailable):
            await second.decide([Query(b"k", 1, 1, LIMIT, 600)])
        while await holder.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"):
            await asyncio.sleep(0.05)
        await holding.rollback()
        [verdict] = await first.decide([Query(b"k", 1, 1, LIMIT, 600)])
    await holder.close()
    assert verdict.remaining == LIMIT - 2  # abandoned decisions were not charged


async def test_whole_system__works(
    pgbouncer: PgBouncer, database_url: str, start_system: Callable[..., System]
) -> None:
    url = pgbouncer.url(urlsplit(database_url).path.lstrip("/"))
    await walk(start_system(DATABASE_URL=url, **TOKEN))


def consumer(redis: Redis, database: Database, name: str) -> Consumer:
    reader = StreamReader(redis, name, batch=100, claim_idle_s=5.0, dead_letters_max=10, now=lambda: 0.0)
    metrics = IngestionMetrics(CollectorRegistry())
    return Consumer(reader, EventWriter(database), metrics, retention_days=30, now=lambda: AT_S)

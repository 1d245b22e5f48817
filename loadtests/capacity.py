"""What a request costs the stores: bytes in the stream, WAL and rows in PostgreSQL, and each service's memory.

python loadtests/capacity.py
"""

import asyncio
import os
import tempfile
import uuid
from pathlib import Path

import aiohttp
import asyncpg
import psutil
from own_system import own_system
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from common.contracts.events import EVENT_FIELD, STREAM, PredictionEvent
from common.stores.postgres import create_pool
from edge_limiter.ratelimit.batcher import Query
from edge_limiter.ratelimit.postgres import PostgresLog
from launcher.postgres import Postgres
from launcher.testing import migrate, started
from launcher.valkey import Valkey
from metrics.ingest.consumer import Consumer
from metrics.ingest.stream import StreamReader
from metrics.ingest.writer import EventWriter
from metrics.metrics import IngestionMetrics
from metrics.storage.database import Database

PORT_BASE = int(os.environ.get("SLUICE_PORT_BASE", "9500"))
EVENTS, DECISIONS, CLIENTS = 100_000, 20_000, 2_000
AT_S = 1_790_000_000
TEXTS = 600
CONNECTIONS = "SELECT application_name, count(*) FROM pg_stat_activity WHERE application_name <> '' GROUP BY 1"


def event(number: int) -> PredictionEvent:
    """As large as a real one."""
    return PredictionEvent(
        id=str(uuid.uuid4()), at_us=AT_S * 1_000_000 + number, route="/predict", outcome="ok",
        request_id=str(uuid.uuid4()), trace_id=uuid.uuid4().hex, client=uuid.uuid4().hex,
        model="sluice-sentiment-minilm", revision="9680a671e92c", label="POSITIVE", score=0.963820828250511,
        margin=0.92, cached=False, truncated=False, latency_us=9_626, queue_us=6_667, compute_us=2_043, tokens=25,
        characters=104,
    )  # fmt: skip  # a field a line would be a screenful


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="capacity-", dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        stores = Postgres(Path(folder) / "postgres", PORT_BASE), Valkey(Path(folder) / "valkey", PORT_BASE + 1)
        with started(stores[0]) as postgres, started(stores[1]) as valkey:
            for package in ("edge_limiter", "metrics"):
                migrate(package, postgres.url())
            await ingestion(postgres.url(), valkey)
            await decisions(postgres.url())
        await memory(Path(folder) / "state")


async def ingestion(url: str, valkey: Valkey) -> None:
    redis = Redis(host=valkey.host, port=valkey.port, password=valkey.password, decode_responses=True, protocol=3)
    payload_bytes = 0
    async with redis, create_pool(url, schema="metrics", application="capacity", size=2, timeout_s=60) as pool:
        for first in range(0, EVENTS, 1000):
            pipeline = redis.pipeline(transaction=False)
            for number in range(first, first + 1000):
                payload = event(number).model_dump_json(exclude_none=True)
                payload_bytes += len(payload)
                pipeline.xadd(STREAM, {EVENT_FIELD: payload})
            await pipeline.execute()
        stream_bytes = await redis.memory_usage(STREAM, samples=0) or 0
        print(f"event: {payload_bytes / EVENTS:.0f} bytes in the journal, {stream_bytes / EVENTS:.0f} bytes in Redis")
        reader = StreamReader(redis, "c", batch=5000, claim_idle_s=60, dead_letters_max=10, now=lambda: 0.0)
        metrics = IngestionMetrics(CollectorRegistry())
        consumer = Consumer(reader, EventWriter(Database(pool, 60)), metrics, retention_days=30, now=lambda: AT_S)
        connection = await asyncpg.connect(url)
        await reader.create_group()
        before, size = await lsn(connection), await connection.fetchval("SELECT pg_database_size(current_database())")
        while await consumer.step():
            pass
        grown = await connection.fetchval("SELECT pg_database_size(current_database())") - size
        written = await lsn(connection) - before
        print(f"event stored: {grown / EVENTS:.0f} bytes on disk, {written / EVENTS:.0f} bytes of WAL")
        await connection.close()


async def decisions(url: str) -> None:
    log = PostgresLog(url, durable=False)
    task = asyncio.create_task(log.run())
    await log.wait_up()
    connection = await asyncpg.connect(url)
    for batch in (1, 16):
        before = await lsn(connection)
        for first in range(0, DECISIONS, batch):
            keys = [b"%016d" % ((first + place) % CLIENTS) for place in range(batch)]
            await log.decide([Query(key, 1, 1, 60, 60) for key in sorted(keys)])
        written = await lsn(connection) - before
        print(f"decision, {batch} in a statement: {written / DECISIONS:.0f} bytes of WAL, {1 / batch:.2f} transactions")
    await connection.close()
    task.cancel()
    await asyncio.wait([task])


async def lsn(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))


async def memory(state: Path) -> None:
    with own_system(state) as system:
        async with aiohttp.ClientSession(system.url) as client:
            gate = asyncio.Semaphore(32)

            async def ask(number: int) -> None:
                text, address = (
                    f"A thoughtful, moving film, number {number}.",
                    f"198.51.{number % 100}.{number % 200 + 1}",
                )
                headers = {"X-Forwarded-For": address}
                async with gate, client.post("/predict", json={"text": text}, headers=headers) as answer:
                    await answer.read()

            await asyncio.gather(*map(ask, range(TEXTS)))
            async with client.post("/analyze/performance", json={"window": "1h"}) as answer:
                await answer.read()
        for package in ("edge_limiter", "inference", "metrics", "analyst"):
            process: psutil.Process = system.service(package)
            print(f"{package}: {process.memory_full_info().uss >> 20} MiB of its own, {process.num_threads()} threads")
        connection = await system.database()
        found = await connection.fetch(CONNECTIONS)
        print("connections:", ", ".join(f"{name} {count}" for name, count in found))
        await connection.close()


if __name__ == "__main__":
    asyncio.run(main())

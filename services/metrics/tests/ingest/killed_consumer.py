"""Runs a consumer that is killed between the COMMIT and the acknowledgement of its first batch."""

import asyncio
import os
import signal
import sys
import time
from typing import Any

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from common.stores.postgres import create_pool
from metrics.ingest.consumer import Consumer
from metrics.ingest.stream import StreamReader
from metrics.ingest.writer import EventWriter, WriteResult
from metrics.metrics import IngestionMetrics
from metrics.storage.database import Database


class FatalLedger(EventWriter):
    """Kills the process after its first COMMIT."""

    async def write(self, events: Any) -> WriteResult:
        written = await super().write(events)
        os.kill(os.getpid(), signal.SIGKILL)
        return written


async def main(database_url: str, redis_url: str) -> None:
    async with (
        create_pool(database_url, schema="metrics", application="test") as pool,
        Redis.from_url(redis_url, decode_responses=True, protocol=3) as redis,
    ):
        reader = StreamReader(redis, "doomed", batch=40, claim_idle_s=60, dead_letters_max=10, now=time.monotonic)
        writer = FatalLedger(Database(pool, 10))
        consumer = Consumer(reader, writer, IngestionMetrics(CollectorRegistry()), retention_days=30_000, now=time.time)
        await consumer.run()


asyncio.run(main(*sys.argv[1:]))

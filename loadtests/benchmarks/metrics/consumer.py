"""A consumer process for the kill test: python consumer.py DATABASE_URL REDIS_URL"""

import asyncio
import logging
import os
import sys
import time

import structlog
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from common.stores.postgres import create_pool
from metrics.ingest.consumer import Consumer
from metrics.ingest.stream import StreamAdmin, StreamReader
from metrics.ingest.writer import EventWriter
from metrics.metrics import IngestionMetrics
from metrics.storage.database import Database

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


async def main(database_url: str, redis_url: str) -> None:
    async with (
        create_pool(database_url, schema="metrics", application="chaos", size=1, timeout_s=5) as pool,
        Redis.from_url(
            redis_url, decode_responses=True, protocol=3, socket_timeout=2.5, retry=Retry(NoBackoff(), 0)
        ) as redis,
    ):
        reader = StreamReader(
            redis, f"c{os.getpid()}", batch=5_000, claim_idle_s=2, dead_letters_max=100, now=time.monotonic
        )
        consumer = Consumer(
            reader,
            EventWriter(Database(pool, 5)),
            IngestionMetrics(CollectorRegistry()),
            retention_days=30,
            now=time.time,
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(consumer.run())
            tasks.create_task(tidy(StreamAdmin(redis)))


async def tidy(maintenance: StreamAdmin) -> None:
    """Trim the stream periodically, as the service does."""
    while True:
        await asyncio.sleep(1)
        try:
            await maintenance.tidy()
        except Exception as error:
            structlog.get_logger().debug("not tidied", error=type(error).__name__)


asyncio.run(main(*sys.argv[1:]))

"""Measures events per second from the stream to committed rollups, and common ways to insert the same rows."""

import random
import time
from collections.abc import Sequence
from typing import Any, Final

import asyncpg
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from common.contracts.events import EVENT_FIELD, STREAM, PredictionEvent
from common.http.context import uuid7
from common.stores.postgres import create_pool
from launcher.valkey import Valkey
from metrics.ingest.consumer import Consumer
from metrics.ingest.stream import StreamReader
from metrics.ingest.writer import PREDICTION_COLUMNS, EventWriter, prediction_row
from metrics.metrics import IngestionMetrics
from metrics.storage.database import Database

BATCH: Final = 5_000  # METRICS_BATCH
_SPREAD_US: Final = 60_000_000
_INSERT: Final = (
    f"INSERT INTO prediction ({', '.join(PREDICTION_COLUMNS)}) "
    f"VALUES ({', '.join(f'${n}' for n in range(1, len(PREDICTION_COLUMNS) + 1))})"
)


def made_up(n: int) -> list[PredictionEvent]:
    """Return events of the last minute, as inference writes them."""
    rng = random.Random(1)
    start_us = int(time.time() * 1_000_000) - _SPREAD_US
    return [
        PredictionEvent(
            id=uuid7(),
            at_us=start_us + n_th * _SPREAD_US // n,
            route=rng.choice(("/predict", "/predict/batch")),
            outcome="ok" if rng.random() > 0.01 else "timeout",
            request_id=f"{rng.getrandbits(64):016x}",
            model="sentiment",
            revision="1",
            label=rng.choice(("POSITIVE", "NEGATIVE")),
            score=rng.uniform(0.5, 1),
            margin=rng.random(),
            latency_us=max(1, round(rng.lognormvariate(9, 0.8))),
            queue_us=500,
            compute_us=8_000,
            tokens=rng.randrange(4, 60),
            characters=max(1, round(rng.lognormvariate(4, 0.7))),
        )
        for n_th in range(n)
    ]


async def consumed(url: str, valkey: Valkey, events: Sequence[PredictionEvent]) -> float:
    """Return the events per second of one consumer, until all are acknowledged."""
    async with (
        Redis.from_url(valkey.url(), decode_responses=True, protocol=3) as redis,
        create_pool(url, schema="metrics", application="bench", size=1, timeout_s=60) as pool,
    ):
        await redis.delete(STREAM)
        await fill(redis, events)
        reader = StreamReader(redis, "bench", batch=BATCH, claim_idle_s=60, dead_letters_max=10, now=time.monotonic)
        writer = EventWriter(Database(pool, 60))
        consumer = Consumer(reader, writer, IngestionMetrics(CollectorRegistry()), retention_days=30, now=time.time)
        await reader.create_group()
        left, started = len(events), time.perf_counter()
        while left:
            left -= await consumer.step()
        return len(events) / (time.perf_counter() - started)


async def fill(redis: Redis, events: Sequence[PredictionEvent]) -> None:
    for start in range(0, len(events), 1_000):
        pipeline: Any = redis.pipeline(transaction=False)
        for event in events[start : start + 1_000]:
            pipeline.xadd(STREAM, {EVENT_FIELD: event.model_dump_json(exclude_none=True)})
        await pipeline.execute()


async def inserted(url: str, events: Sequence[PredictionEvent], *, one_by_one: bool) -> float:
    """Return the rows per second without stream and rollups, by executemany or one INSERT each."""
    rows = [prediction_row(event) for event in events]
    connection = await asyncpg.connect(url, server_settings={"search_path": "metrics"})
    try:
        started = time.perf_counter()
        if one_by_one:
            for row in rows:
                await connection.execute(_INSERT, *row)
        else:
            for start in range(0, len(rows), BATCH):
                await connection.executemany(_INSERT, rows[start : start + BATCH])
        return len(events) / (time.perf_counter() - started)
    finally:
        await connection.close()

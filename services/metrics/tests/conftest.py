"""Fixtures: events, and the components of this service with real stores."""

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from common.contracts.events import DEAD_LETTERS, EVENT_FIELD, STREAM, CounterEvent, PredictionEvent
from common.stores.postgres import create_pool
from metrics.ingest.consumer import Consumer
from metrics.ingest.stream import StreamReader
from metrics.ingest.writer import EventWriter
from metrics.metrics import IngestionMetrics
from metrics.storage.database import Database

Event = PredictionEvent | CounterEvent

AT_US = 1_790_000_000_000_000  # a moment in September 2026, in the middle of a minute


class Clock:
    """A clock that tests advance."""

    def __init__(self, now_s: float = AT_US / 1_000_000) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def prediction() -> Callable[..., PredictionEvent]:
    """Returns a function that makes an event; fields that are not given are those of an answered prediction."""

    def make(**fields: Any) -> PredictionEvent:
        usual = {
            "id": str(uuid.uuid4()),
            "at_us": AT_US,
            "route": "/predict",
            "outcome": "ok",
            "request_id": "r-1",
            "model": "m",
            "revision": "1",
            "label": "POSITIVE",
            "score": 0.75,
            "margin": 0.5,
            "latency_us": 10_000,
            "characters": 40,
        }
        return PredictionEvent.model_validate(usual | fields)

    return make


@pytest.fixture
def counter() -> Callable[..., CounterEvent]:
    def make(**fields: Any) -> CounterEvent:
        usual = {"id": str(uuid.uuid4()), "at_us": AT_US, "route": "/predict", "outcome": "limited", "n": 1}
        return CounterEvent.model_validate(usual | fields)

    return make


@pytest.fixture
def metrics_url(migrated_url: Callable[..., str]) -> str:
    """The URL of a database with this service's empty tables."""
    return migrated_url("metrics")


@pytest.fixture
async def database(metrics_url: str) -> AsyncIterator[Database]:
    async with create_pool(metrics_url, schema="metrics", application="test", size=8, timeout_s=20) as pool:
        yield Database(pool, 20)


@pytest.fixture
async def redis(redis_settings: dict[str, Any]) -> AsyncIterator[Redis]:
    async with Redis(**redis_settings, decode_responses=True, encoding_errors="replace", protocol=3) as client:
        yield client


@pytest.fixture
def send(redis: Redis) -> Callable[..., Any]:
    """Returns a function that writes events or raw payloads to the stream and returns the entries' ids."""

    async def write(*events: Event | bytes | str) -> list[str]:
        payloads = [e if isinstance(e, bytes | str) else e.model_dump_json(exclude_none=True) for e in events]
        return [str(await redis.xadd(STREAM, {EVENT_FIELD: payload})) for payload in payloads]

    return write


@pytest.fixture
def reader(redis: Redis) -> Callable[..., StreamReader]:
    """Returns a function that creates a consumer. It claims abandoned entries after `claim_idle_s`."""

    def make(name: str = "c", *, claim_idle_s: float = 0.0, batch: int = 100) -> StreamReader:
        return StreamReader(redis, name, batch=batch, claim_idle_s=claim_idle_s, dead_letters_max=1000, now=lambda: 0.0)

    return make


@pytest.fixture
def dead(redis: Redis) -> Callable[..., Any]:
    """Returns a function that lists the reasons of all dead letters."""

    async def reasons() -> list[str]:
        letters: Any = await redis.xrange(DEAD_LETTERS)
        return [fields["reason"] for _, fields in letters]

    return reasons


@pytest.fixture
def consumer(database: Database, clock: Clock) -> Callable[..., Consumer]:
    """Returns a function that creates a consumer with a stream reader."""
    metrics = IngestionMetrics(CollectorRegistry())
    return lambda stream, writer=None: Consumer(
        stream, writer or EventWriter(database), metrics, retention_days=30, now=clock
    )


@pytest.fixture
def rows(database: Database) -> Callable[..., Any]:
    """Returns a function that runs SQL and returns the rows as tuples."""

    async def fetch(sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        async with database.transaction() as connection:
            return [tuple(row) for row in await connection.fetch(sql, *arguments)]

    return fetch

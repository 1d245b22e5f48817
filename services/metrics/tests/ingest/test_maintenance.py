"""Lag and partitions, as maintenance measures and exports them."""

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from structlog.testing import capture_logs

from common.runtime import tasks
from common.runtime.settings import RedisSettings
from common.stores.postgres import create_pool
from common.stores.redis import create_client
from metrics.errors import StoreUnavailable
from metrics.ingest.maintenance import Maintenance
from metrics.ingest.stream import Backlog, StreamAdmin
from metrics.metrics import MaintenanceMetrics
from metrics.storage.database import Database
from metrics.storage.partitions import Partitions, PartitionState


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def maintenance(
    redis: Redis, database: Database, clock: Callable[[], float], registry: CollectorRegistry
) -> Maintenance:
    partitions = Partitions(database, retention_days=3, ahead_days=2, now=clock)
    return Maintenance(StreamAdmin(redis), partitions, MaintenanceMetrics(registry))


async def current_lag(maintenance: Maintenance) -> float:
    """Return the lag; retry while a busy machine exceeds the half-second."""
    async with asyncio.timeout(30):
        while (lag_s := await maintenance.lag_s()) is None:
            pass
    return lag_s


async def test_lag__is_measured_and_exported(
    maintenance: Maintenance, registry: CollectorRegistry, redis: Redis
) -> None:
    seconds, micros = await redis.time()
    await redis.xadd("{predictions}", {"event": "x"}, id=f"{(seconds - 60) * 1000 + micros // 1000}-0")
    assert await current_lag(maintenance) == pytest.approx(60, abs=5)
    assert registry.get_sample_value("sluice_metrics_lag_seconds") == pytest.approx(60, abs=5)
    assert registry.get_sample_value("sluice_metrics_lag_entries") == 1


async def test_lag__is_known_to_each_of_a_crowd(
    redis_settings: dict[str, Any], database: Database, clock: Callable[[], float], registry: CollectorRegistry
) -> None:
    """More callers than connections to Redis."""
    settings = RedisSettings.model_validate(
        {f"redis_{name}": value for name, value in redis_settings.items()} | {"redis_timeout_s": 30}
    )
    async with create_client(settings) as redis, asyncio.timeout(30):
        partitions = Partitions(database, retention_days=3, ahead_days=2, now=clock)
        maintenance = Maintenance(StreamAdmin(redis), partitions, MaintenanceMetrics(registry))
        while None in await asyncio.gather(*(maintenance.lag_s() for _ in range(200))):
            pass  # a busy machine may exceed the half-second


async def test_lag_without_redis__is_unknown(
    own_valkey: Callable[..., Any], database: Database, clock: Callable[[], float], registry: CollectorRegistry
) -> None:
    server = own_valkey()
    settings = RedisSettings(redis_host=server.host, redis_port=server.port, redis_password=server.password)
    async with create_client(settings) as redis:
        partitions = Partitions(database, retention_days=3, ahead_days=2, now=clock)
        maintenance = Maintenance(StreamAdmin(redis), partitions, MaintenanceMetrics(registry))
        server.kill()
        assert await maintenance.lag_s() is None
    assert math.isnan(registry.get_sample_value("sluice_metrics_lag_seconds") or 0)


async def test_lag_of_a_stream_that_takes_no_writes__is_unknown_and_what_it_holds_is_exported_and_trimmed(
    own_valkey: Callable[..., Any], database: Database, clock: Callable[[], float], registry: CollectorRegistry
) -> None:
    server = own_valkey()
    settings = RedisSettings(redis_host=server.host, redis_port=server.port, redis_password=server.password)
    async with create_client(settings, timeout_s=30) as redis:
        partitions = Partitions(database, retention_days=3, ahead_days=2, now=clock)
        maintenance = Maintenance(StreamAdmin(redis), partitions, MaintenanceMetrics(registry))
        await redis.xgroup_create("{predictions}", "metrics", mkstream=True)
        pipeline = redis.pipeline(transaction=False)
        for _ in range(1_000):
            pipeline.xadd("{predictions}", {"event": "x"})
        await pipeline.execute()
        await redis.xreadgroup("metrics", "c", {"{predictions}": ">"}, count=999, noack=True)
        await redis.config_set("maxmemory", 1)
        assert await maintenance.lag_s() is None
        assert registry.get_sample_value("sluice_metrics_lag_entries") == 1
        watching = asyncio.create_task(maintenance.watch_stream())
        try:
            async with asyncio.timeout(30):
                while await redis.xlen("{predictions}") > 500:
                    await asyncio.sleep(0)
        finally:
            await tasks.cancel_and_wait(watching)
        await redis.config_set("maxmemory", 0)
        assert await current_lag(maintenance) >= 0


async def test_stream_that_takes_no_writes_for_long__is_logged_once(
    own_valkey: Callable[..., Any], database: Database, clock: Callable[[], float], registry: CollectorRegistry
) -> None:
    """As on a full disk: Redis answers reads and rejects trimming."""
    rounds: asyncio.Queue[None] = asyncio.Queue()

    class Tidied(StreamAdmin):
        async def tidy(self) -> None:
            try:
                await super().tidy()
            finally:
                rounds.put_nowait(None)

    server = own_valkey()
    settings = RedisSettings(redis_host=server.host, redis_port=server.port, redis_password=server.password)
    async with create_client(settings, timeout_s=30) as redis:
        await redis.xgroup_create("{predictions}", "metrics", mkstream=True)
        partitions = Partitions(database, retention_days=3, ahead_days=2, now=clock)
        with capture_logs() as logs:
            watching = asyncio.create_task(
                Maintenance(Tidied(redis), partitions, MaintenanceMetrics(registry)).watch_stream()
            )
            try:
                async with asyncio.timeout(60):
                    for replicas in (1, 1, 1, 0, 0, 1, 1):
                        await rounds.get()
                        await redis.config_set("min-replicas-to-write", replicas)
            finally:
                await tasks.cancel_and_wait(watching)
    assert [entry["event"] for entry in logs] == ["stream not trimmed"] * 2


async def test_partitions__are_maintained_and_exported(maintenance: Maintenance, registry: CollectorRegistry) -> None:
    assert await maintenance.maintain() is True
    assert registry.get_sample_value("sluice_metrics_partitions") == 6
    assert registry.get_sample_value("sluice_metrics_partitions_ahead") == 2
    assert registry.get_sample_value("sluice_metrics_default_partition_rows") == 0


async def test_partitions_that_are_not_maintained__run_out_day_by_day(
    redis: Redis, metrics_url: str, clock: Any, registry: CollectorRegistry
) -> None:
    """As with a role whose `statement_timeout` ends each round. The exported days must not stay at the last value."""

    def ahead() -> float | None:
        return registry.get_sample_value("sluice_metrics_partitions_ahead")

    async with create_pool(metrics_url, schema="metrics", application="test", timeout_s=20) as pool:
        partitions = Partitions(Database(pool, 20), retention_days=3, ahead_days=2, now=clock)
        maintenance = Maintenance(StreamAdmin(redis), partitions, MaintenanceMetrics(registry))
        assert ahead() == 0
        assert await maintenance.maintain() is True
        assert ahead() == 2
        await pool.execute("DROP SCHEMA metrics CASCADE")
        for days in (1, 0, 0):
            clock.now_s += 86_400
            assert await maintenance.maintain() is False
            assert ahead() == days


async def test_partitions_without_tables__are_tried_again(
    redis: Redis, database_url: str, clock: Callable[[], float], registry: CollectorRegistry
) -> None:
    async with create_pool(database_url, schema="metrics", application="test") as pool:
        partitions = Partitions(Database(pool, 5), retention_days=3, ahead_days=2, now=clock)
        assert await Maintenance(StreamAdmin(redis), partitions, MaintenanceMetrics(registry)).maintain() is False


async def test_partitions_that_stay_locked__are_tried_ever_later(
    redis: Redis, database: Database, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try makes writers wait for two seconds, and a backup holds its locks for hours."""
    monkeypatch.setattr("metrics.ingest.maintenance._RETRY_S", 0.05)
    tries: asyncio.Queue[float] = asyncio.Queue()

    class Locked(Partitions):
        async def maintain(self) -> PartitionState:
            tries.put_nowait(asyncio.get_running_loop().time())
            raise StoreUnavailable("LockNotAvailableError")

    partitions = Locked(database, retention_days=3, ahead_days=2, now=lambda: 0.0)
    watching = asyncio.create_task(
        Maintenance(StreamAdmin(redis), partitions, MaintenanceMetrics(registry)).watch_partitions(60)
    )
    try:
        async with asyncio.timeout(60):
            times = [await tries.get() for _ in range(5)]
    finally:
        await tasks.cancel_and_wait(watching)
    assert all(
        after - before >= wait_s for before, after, wait_s in zip(times, times[1:], (0.05, 0.1, 0.2, 0.4), strict=False)
    )


async def test_unexpected_errors__do_not_end_upkeep(
    database: Database, clock: Callable[[], float], registry: CollectorRegistry
) -> None:
    rounds: asyncio.Queue[None] = asyncio.Queue()

    class Odd(Partitions):
        async def maintain(self) -> PartitionState:
            rounds.put_nowait(None)
            raise RuntimeError

    class OddStream(StreamAdmin):
        def __init__(self) -> None:
            pass

        async def backlog(self) -> Backlog:
            rounds.put_nowait(None)
            raise RuntimeError

    partitions = Odd(database, retention_days=3, ahead_days=2, now=clock)
    maintenance = Maintenance(OddStream(), partitions, MaintenanceMetrics(registry))
    for work in (maintenance.watch_partitions(0.001), maintenance.watch_stream()):
        watching = asyncio.create_task(work)
        try:
            async with asyncio.timeout(20):
                for _ in range(2):
                    await rounds.get()
        finally:
            await tasks.cancel_and_wait(watching)
        assert watching.cancelled()

"""Builds the metrics service: every object once, opened in order and closed in reverse."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from common.http.app import AppConfig, create_app
from common.http.client import create_session
from common.http.openapi import add_openapi
from common.runtime.loopback import is_loopback
from common.runtime.metrics import HttpMetrics, create_registry
from common.runtime.readiness import Check, Readiness, State
from common.runtime.settings import StartError
from common.runtime.tasks import supervised
from common.service import Service
from common.stores.postgres import create_pool
from common.stores.redis import create_client
from metrics.alerting.evaluator import Evaluator
from metrics.alerting.outbox import Outbox
from metrics.alerting.rule_store import ThresholdStore
from metrics.alerting.store import AlertStore
from metrics.alerting.webhook import Notifier
from metrics.api.resources import RESOURCES, Resources
from metrics.api.routes import ERRORS, routes
from metrics.dashboard.assets import Assets, read_assets
from metrics.dashboard.server import add_dashboard
from metrics.errors import AssetDamaged, StoreUnavailable, StreamUnavailable
from metrics.ingest.consumer import Consumer
from metrics.ingest.maintenance import Maintenance
from metrics.ingest.stream import BLOCK_S, StreamAdmin, StreamReader
from metrics.ingest.writer import EventWriter
from metrics.metrics import AlertMetrics, IngestionMetrics, MaintenanceMetrics
from metrics.query.aggregate import Aggregates
from metrics.query.broadcast import AggregateBroadcaster
from metrics.query.feedback import FeedbackStore
from metrics.query.predictions import Predictions
from metrics.query.rollups import Rollups
from metrics.query.shared import SharedAggregates
from metrics.settings import QUICK_CONNECTIONS, MetricsSettings
from metrics.storage.database import Database
from metrics.storage.partitions import Partitions

SCHEMA: Final = "metrics"
_CHECK_S: Final = 0.8


def migrate(settings: MetricsSettings) -> None:
    """Run the migrations."""
    from common.stores import migrations  # loads SQLAlchemy, which a running service does not need

    migrations.migrate(settings.database_url.get_secret_value(), package="metrics", schema=SCHEMA)


def create_service(settings: MetricsSettings) -> Service:
    """Return the service, ready to listen. It also starts while PostgreSQL or Redis is down."""
    registry = create_registry()
    readiness, fatal = Readiness({"start": _not_started}), asyncio.Event()
    app = create_app(
        AppConfig(
            HttpMetrics(registry),
            errors=ERRORS,
            default_timeout_s=settings.metrics_request_timeout_s,
            is_local=is_loopback(settings.metrics_host),
        )
    )
    app.add_routes(routes())
    add_openapi(
        app,
        title="Sluice metrics",
        version=version("sluice-metrics"),
        description="What was predicted: counts, aggregates, drift, thresholds, alerts and single predictions.",
    )
    add_dashboard(app, _assets())

    async def resources(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as opened:
            app[RESOURCES], readiness.checks = await _open(opened, settings, registry, fatal)
            yield

    async def end_streams(app: web.Application) -> None:
        app[RESOURCES].live.stop()

    app.cleanup_ctx.append(resources)
    app.on_shutdown.append(end_streams)
    return Service(app, readiness, registry, settings.listen(), settings.sluice_drain_s, fatal=fatal)


def _assets() -> Assets:
    try:
        return read_assets()
    except AssetDamaged as error:
        raise StartError(f"{error} of the package youplot is not the one that the dashboard was made with") from error


async def _open(
    opened: AsyncExitStack, settings: MetricsSettings, registry: CollectorRegistry, fatal: asyncio.Event
) -> tuple[Resources, dict[str, Check]]:
    reading = await _database(
        opened, settings, settings.metrics_connections - QUICK_CONNECTIONS, settings.metrics_database_timeout_s
    )
    quick = await _database(opened, settings, QUICK_CONNECTIONS, settings.metrics_database_timeout_s)
    writing = await _database(opened, settings, settings.writing_connections(), settings.metrics_ingest_timeout_s)
    stream = StreamAdmin(await opened.enter_async_context(create_client(settings)))
    maintenance = await _start_maintenance(opened, settings, writing, stream, registry, fatal)
    await _start_consumers(opened, settings, writing, registry, fatal)
    rollups = Rollups(reading)
    aggregates = Aggregates(rollups, maintenance.lag_s, now=time.time)
    shared = SharedAggregates(aggregates, timeout_s=settings.metrics_request_timeout_s, now=time.monotonic)
    opened.push_async_callback(shared.close)
    live = AggregateBroadcaster(
        aggregates, interval_s=settings.metrics_stream_s, max_followers=settings.metrics_stream_clients
    )
    await opened.enter_async_context(supervised(live.watch(), "live aggregates", fatal))
    await _start_alerting(opened, settings, writing, maintenance, registry, fatal)
    counts = Rollups(quick)
    checks: dict[str, Check] = {"database": _database_check(counts), "redis": _redis_check(stream)}
    alerts = AlertStore(quick, interval_s=settings.metrics_evaluate_s, now=time.time)
    stores = ThresholdStore(quick), alerts, Predictions(reading), FeedbackStore(writing)
    return Resources(counts, aggregates, shared, *stores, live), checks


async def _database(opened: AsyncExitStack, settings: MetricsSettings, connections: int, timeout_s: float) -> Database:
    pool = await opened.enter_async_context(
        create_pool(
            settings.database_url.get_secret_value(),
            schema=SCHEMA,
            application="sluice-metrics",
            size=connections,
            timeout_s=timeout_s,
        )
    )
    return Database(pool, timeout_s)


async def _start_maintenance(
    opened: AsyncExitStack,
    settings: MetricsSettings,
    database: Database,
    stream: StreamAdmin,
    registry: CollectorRegistry,
    fatal: asyncio.Event,
) -> Maintenance:
    partitions = Partitions(
        database,
        retention_days=settings.metrics_retention_days,
        ahead_days=settings.metrics_partitions_ahead_days,
        now=time.time,
    )
    maintenance = Maintenance(stream, partitions, MaintenanceMetrics(registry))
    for work in (maintenance.watch_partitions(settings.metrics_maintenance_s), maintenance.watch_stream()):
        await opened.enter_async_context(supervised(work, "upkeep", fatal))
    return maintenance


async def _start_consumers(
    opened: AsyncExitStack,
    settings: MetricsSettings,
    database: Database,
    registry: CollectorRegistry,
    fatal: asyncio.Event,
) -> None:
    redis = await opened.enter_async_context(create_client(settings, timeout_s=settings.redis_timeout_s + BLOCK_S))
    metrics, process = IngestionMetrics(registry), f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    for number in range(settings.metrics_consumers):
        reader = StreamReader(
            redis,
            f"{process}-{number}",
            batch=settings.metrics_batch,
            claim_idle_s=settings.metrics_claim_idle_s,
            dead_letters_max=settings.metrics_dead_letters_max,
            now=time.monotonic,
        )
        consumer = Consumer(
            reader, EventWriter(database), metrics, retention_days=settings.metrics_retention_days, now=time.time
        )
        consuming = supervised(consumer.run(), "consumer", fatal, stop=consumer.stop, drain_s=settings.sluice_drain_s)
        await opened.enter_async_context(consuming)


async def _start_alerting(
    opened: AsyncExitStack,
    settings: MetricsSettings,
    database: Database,
    maintenance: Maintenance,
    registry: CollectorRegistry,
    fatal: asyncio.Event,
) -> None:
    metrics, url = AlertMetrics(registry), settings.metrics_webhook_url.get_secret_value()
    evaluator = Evaluator(
        database,
        metrics,
        interval_s=settings.metrics_evaluate_s,
        notifies=bool(url),
        lag_s=maintenance.lag_s,
        now=time.time,
    )
    await opened.enter_async_context(supervised(evaluator.watch(), "evaluator", fatal))
    if url:
        notifier = Notifier(
            Outbox(database, lease_s=settings.metrics_webhook_timeout_s + settings.metrics_ingest_timeout_s),
            await opened.enter_async_context(create_session(connections=2)),
            metrics,
            url=url,
            token=settings.metrics_webhook_token.get_secret_value(),
            signing_key=settings.metrics_webhook_signing_key.get_secret_value(),
            timeout_s=settings.metrics_webhook_timeout_s,
            now=time.time,
        )
        await opened.enter_async_context(supervised(notifier.watch(), "notifier", fatal))


async def _not_started() -> State:
    return "failed"


def _database_check(rollups: Rollups) -> Check:
    async def check() -> State:
        """Return `failed` without PostgreSQL or before its migrations: every response needs its tables."""
        try:
            async with asyncio.timeout(_CHECK_S):
                await rollups.count()
        except (StoreUnavailable, TimeoutError):
            return "failed"
        return "ok"

    return check


def _redis_check(stream: StreamAdmin) -> Check:
    async def check() -> State:
        """Return `degraded` while Redis is down or read-only: no new events arrive, but stored ones are served."""
        try:
            await stream.check_writable()
        except StreamUnavailable:
            return "degraded"
        return "ok"

    return check

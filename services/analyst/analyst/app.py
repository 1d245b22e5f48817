"""Builds the analyst, opens its resources and closes them in reverse."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

import structlog
from aiohttp import web
from redis.asyncio import Redis

from analyst.api import ApiDeps, add_routes, error_table
from analyst.cache.redis_store import Listener, RedisFlightStore, listen
from analyst.cache.single_flight import Limits, SingleFlightCache
from analyst.llm.client import Budget
from analyst.llm.factory import open_client
from analyst.llm.quota import Quota
from analyst.llm.retry import RetryingClient
from analyst.llm.selecting import create_select
from analyst.llm.state import ModelState
from analyst.metrics import AnalystMetrics
from analyst.metrics_client import MetricsClient, open_metrics_client
from analyst.report.models import Report
from analyst.report.selection import Offer, Selection
from analyst.report.store import SCHEMA, ReportStore, ReportStoreLimits, open_report_store
from analyst.service import Analyst, LLMSelector
from analyst.settings import AnalystSettings
from common.http.app import AppConfig, create_app
from common.http.context import uuid7
from common.http.openapi import add_openapi
from common.runtime.loopback import is_loopback
from common.runtime.metrics import HttpMetrics, create_registry
from common.runtime.readiness import Check, Readiness, State
from common.runtime.settings import StartError
from common.runtime.tasks import supervised
from common.service import Service
from common.stores.redis import REDIS_ERRORS, create_client

log = structlog.get_logger()

MAX_BODY_BYTES: Final = 16_384
METRICS: Final = web.AppKey("metrics", MetricsClient)
ARCHIVE: Final = web.AppKey[ReportStore | None]("archive")
SELECT: Final = web.AppKey[Callable[[Offer, Budget], Awaitable[Selection]]]("select")


def migrate(settings: AnalystSettings) -> None:
    """Run the migrations."""
    if settings.database_url is None:
        raise StartError("DATABASE_URL is not set: there is nothing to migrate")
    from common.stores import migrations  # loads SQLAlchemy, which a running service does not need

    migrations.migrate(settings.database_url.get_secret_value(), package="analyst", schema=SCHEMA)


def create_service(settings: AnalystSettings, selector: LLMSelector | None = None) -> Service:
    """Return the analyst, ready to listen. `selector` replaces the configured model."""
    registry, fatal = create_registry(), asyncio.Event()
    app = create_app(_app_config(settings, HttpMetrics(registry)))
    redis = create_client(settings, timeout_s=settings.analyst_redis_timeout_s)
    store = RedisFlightStore(redis)
    flights = _create_flights(store, settings)
    quota = Quota(redis, settings.gemini_rate_limit)
    model = ModelState(settings.gemini_model if settings.gemini_api_key else None)
    telemetry = AnalystMetrics(registry, waiting=lambda: flights.waiting, quota_left=lambda: quota.left)

    def on_outcome(outcome: str) -> None:
        telemetry.attempt_ended(outcome)
        model.attempt_ended(outcome)

    async def resources(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(redis.aclose)
            app[METRICS] = await stack.enter_async_context(
                open_metrics_client(settings.metrics_url(), settings.analyst_metrics_timeout_s)
            )
            app[ARCHIVE] = await _open_archive(stack, settings, telemetry.lost.inc, fatal)
            await _open_model(stack, app, settings, quota, on_outcome)
            stack.push_async_callback(flights.close)
            listener = Listener(ended=flights.wake, invalidated=flights.forget, missed=flights.wake_all)
            listening = listen(redis, listener, random.uniform)
            await stack.enter_async_context(supervised(listening, "flight messages", fatal))
            yield

    app.cleanup_ctx.append(resources)
    analyst = Analyst(
        flights,
        selector or _create_selector(app, settings),
        today=lambda: datetime.now(UTC),
        new_id=uuid7,
        observe=_observer(app, telemetry),
    )
    add_routes(
        app,
        ApiDeps(
            analyst=analyst,
            measured=lambda request, context: app[METRICS].measured(request, context),
            invalidate=lambda: _invalidate(store, flights),
            served=telemetry.report_served,
            archive=lambda: app[ARCHIVE],
            model=model,
            quota=quota,
            retry_after_s=settings.analyst_negative_ttl_s,
        ),
    )
    add_openapi(
        app,
        title="Sluice analyst",
        version=version("sluice-analyst"),
        description="Performance reports whose figures and findings come from data, never from a model.",
    )
    readiness = Readiness(_checks(app, redis, model, settings))
    return Service(app, readiness, registry, settings.listen(), settings.sluice_drain_s, fatal=fatal)


def _app_config(settings: AnalystSettings, metrics: HttpMetrics) -> AppConfig:
    return AppConfig(
        metrics=metrics,
        errors=error_table(settings.analyst_negative_ttl_s),
        max_body_bytes=MAX_BODY_BYTES,
        default_timeout_s=settings.analyst_timeout_s,
        maximum_timeout_s=settings.analyst_timeout_s,
        is_local=is_loopback(settings.analyst_host),
    )


def _create_flights(store: RedisFlightStore, settings: AnalystSettings) -> SingleFlightCache:
    limits = Limits(
        ttl_s=settings.gemini_cache_ttl,
        stale_s=settings.analyst_stale_s,
        negative_s=settings.analyst_negative_ttl_s,
        lease_s=settings.analyst_lease_s,
        compute_s=settings.analyst_timeout_s,
        wait_s=settings.analyst_timeout_s,
        max_computations=settings.analyst_max_computations,
    )
    return SingleFlightCache(
        store,
        limits,
        now=time.monotonic,
        uniform=random.uniform,
        new_token=lambda: secrets.token_hex(8),
        on_error=lambda error: log.error("report failed", exc_info=error),
    )


def _create_selector(app: web.Application, settings: AnalystSettings) -> LLMSelector | None:
    """Return the configured model, which opens later; None without a key."""
    if settings.gemini_api_key is None:
        return None
    model, total_s = settings.gemini_model, settings.analyst_ai_timeout_s
    return LLMSelector(model, lambda offer, budget: app[SELECT](offer, budget), total_s)


def _observer(app: web.Application, telemetry: AnalystMetrics) -> Callable[[Report], None]:
    def observe(report: Report) -> None:
        telemetry.report_made(report)
        archive = app[ARCHIVE]
        is_one_of_many = report.fallback_reason == "cache_unavailable"  # these come one per request
        if archive is not None and report.is_worth_keeping and not is_one_of_many:
            archive.keep(report)

    return observe


async def _invalidate(store: RedisFlightStore, flights: SingleFlightCache) -> int:
    dropped = await store.invalidate_all()
    flights.forget_all()  # later requests don't join earlier computations
    return dropped


async def _open_model(
    stack: AsyncExitStack,
    app: web.Application,
    settings: AnalystSettings,
    quota: Quota,
    on_outcome: Callable[[str], None],
) -> None:
    if settings.gemini_api_key is None:
        log.info("no GEMINI_API_KEY is set, so reports are written by rules")
        return
    client = open_client(
        settings.gemini_sdk, settings.gemini_api_key.get_secret_value(), settings.gemini_model, settings.gemini_endpoint
    )
    stack.push_async_callback(client.close)
    retrying = RetryingClient(
        client,
        quota,
        attempt_timeout_s=settings.analyst_attempt_timeout_s,
        new_token=lambda: secrets.token_hex(8),
        uniform=random.uniform,
        on_outcome=on_outcome,
    )
    app[SELECT] = create_select(retrying)


async def _open_archive(
    stack: AsyncExitStack, settings: AnalystSettings, on_lost: Callable[[], None], fatal: asyncio.Event
) -> ReportStore | None:
    if settings.database_url is None:
        return None
    limits = ReportStoreLimits(settings.analyst_reports_keep_days, settings.analyst_database_timeout_s)
    archive = open_report_store(settings.database_url.get_secret_value(), limits, on_lost, fatal)
    return await stack.enter_async_context(archive)


def _checks(app: web.Application, redis: Redis, model: ModelState, settings: AnalystSettings) -> dict[str, Check]:
    async def redis_state() -> State:
        try:
            await redis.ping()
        except REDIS_ERRORS:
            return "degraded"
        return "ok"

    async def metrics_state() -> State:
        return await app[METRICS].state()

    async def model_state() -> State:
        return "degraded" if model.is_degraded else "ok"

    async def database_state() -> State:
        archive = app[ARCHIVE]
        return "ok" if archive is None else await archive.state()

    checks: dict[str, Check] = {"redis": redis_state, "metrics": metrics_state, "model": model_state}
    return checks if settings.database_url is None else checks | {"database": database_state}

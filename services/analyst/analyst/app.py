"""Builds the analyst out of its parts, once; opens its resources and closes them in reverse."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

import structlog
from aiohttp import web
from redis.asyncio import Redis

from analyst.analysis import Analyst, Brief, Drafter, DraftFailed
from analyst.api import Doorway, add_routes, error_table
from analyst.flight import Flights, Limits
from analyst.flight_store import Listener, RedisFlightStore, listen
from analyst.metrics_client import MetricsClient, open_metrics_client
from analyst.report import Draft
from analyst.settings import AnalystSettings
from analyst.telemetry import AnalystMetrics
from common.contracts import Aggregate, AggregateRequest
from common.openapi import add_specification
from common.ops import Readiness, State
from common.redis import REDIS_ERRORS, create_client
from common.requests import RequestContext, uuid7
from common.service import Service
from common.telemetry import HttpMetrics, create_registry
from common.web import Door, create_app

log = structlog.get_logger()

MAX_BODY_BYTES: Final = 16_384
METRICS: Final = web.AppKey("metrics", MetricsClient)


def create_service(settings: AnalystSettings, drafter: Drafter | None = None) -> Service:
    """The analyst, ready to listen. `drafter` stands in for the model that the settings name."""
    registry = create_registry()
    app = create_app(_door(settings, HttpMetrics(registry)))
    redis = create_client(settings, timeout_s=settings.analyst_redis_timeout_s)
    store = RedisFlightStore(redis)
    flights = _create_flights(store, settings)
    telemetry = AnalystMetrics(registry, lambda: flights.waiting)
    drafter = drafter or _create_drafter(settings)
    analyst = Analyst(flights, drafter, today=lambda: datetime.now(UTC), new_id=uuid7, observe=telemetry.report_made)

    async def resources(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(redis.aclose)
            app[METRICS] = await stack.enter_async_context(
                open_metrics_client(settings.metrics_url(), settings.analyst_metrics_timeout_s)
            )
            stack.push_async_callback(flights.close)
            await stack.enter_async_context(_listening(redis, flights))
            if drafter is None:
                log.warning("no GEMINI_API_KEY is set: reports are written by rules")
            yield

    async def aggregated(request: AggregateRequest, context: RequestContext) -> Aggregate:
        return await app[METRICS].aggregated(request, context)

    async def invalidate() -> int:
        dropped = await store.invalidate_all()
        flights.forget_all()  # whoever asks from now on joins no flight from before
        return dropped

    async def metrics_state() -> State:
        return await app[METRICS].state()

    app.cleanup_ctx.append(resources)
    doorway = Doorway(analyst, aggregated, invalidate, telemetry.report_served, settings.analyst_negative_ttl_s)
    add_routes(app, doorway)
    add_specification(app, title="Sluice analyst", version=version("sluice-analyst"))
    readiness = Readiness({"redis": lambda: _redis_state(redis), "metrics": metrics_state})
    return Service(app, readiness, registry, settings.listen(), settings.sluice_drain_s)


def _door(settings: AnalystSettings, metrics: HttpMetrics) -> Door:
    return Door(
        metrics=metrics,
        errors=error_table(settings.analyst_negative_ttl_s),
        max_body_bytes=MAX_BODY_BYTES,
        default_timeout_s=settings.analyst_timeout_s,
        maximum_timeout_s=settings.analyst_timeout_s,
    )


def _create_flights(store: RedisFlightStore, settings: AnalystSettings) -> Flights:
    limits = Limits(
        ttl_s=settings.gemini_cache_ttl,
        stale_s=settings.analyst_stale_s,
        negative_s=settings.analyst_negative_ttl_s,
        lease_s=settings.analyst_lease_s,
        compute_s=settings.analyst_timeout_s,
        wait_s=settings.analyst_timeout_s,
        max_flights=settings.analyst_max_flights,
    )
    return Flights(
        store,
        limits,
        now=time.monotonic,
        uniform=random.uniform,
        new_token=lambda: secrets.token_hex(8),
        on_error=lambda error: log.error("report failed", exc_info=error),
    )


def _create_drafter(settings: AnalystSettings) -> Drafter | None:
    """The model's adapter; none without a key. No adapter is built in yet, and reports say so."""
    if settings.gemini_api_key is None:
        return None

    async def draft(_brief: Brief) -> Draft:
        raise DraftFailed("no_adapter")

    return Drafter(settings.gemini_model, draft)


@asynccontextmanager
async def _listening(redis: Redis, flights: Flights) -> AsyncIterator[None]:
    listener = Listener(ended=flights.wake, invalidated=flights.forget, missed=flights.wake_all)
    task = asyncio.create_task(listen(redis, listener, random.uniform), name="flight messages")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _redis_state(redis: Redis) -> State:
    try:
        await redis.ping()
    except REDIS_ERRORS:
        return "degraded"
    return "ok"

"""The composition root: builds each object of the edge once and hands it to those that need it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from common.contracts.events import STREAM
from common.contracts.reports import AnalystHealth
from common.http.context import uuid7
from common.http.problems import Problem
from common.journal.recorder import ClientHasher
from common.runtime.metrics import HttpMetrics, create_registry
from common.runtime.readiness import Readiness, State
from common.runtime.settings import StartError
from common.runtime.tasks import supervised
from common.service import Service
from common.stores.postgres import POSTGRES_ERRORS, create_pool, migrate
from common.stores.redis import check_writable, create_client
from edge_limiter.check.http import check_handler
from edge_limiter.check.lookup import Limits
from edge_limiter.metrics import EdgeMetrics
from edge_limiter.pages.health import AskAnalyst, HealthReport, Probe
from edge_limiter.pages.info import local_handlers
from edge_limiter.proxy.admin import Admin
from edge_limiter.proxy.enforcement import Enforcer
from edge_limiter.proxy.forward import Forwarder
from edge_limiter.proxy.handler import LocalHandler, ProxyHandler
from edge_limiter.proxy.rejections import RejectionCounters
from edge_limiter.proxy.routes import ANALYST, INFERENCE, ROUTES, RouteTable
from edge_limiter.ratelimit.housekeeping import Housekeeping
from edge_limiter.ratelimit.identity import Clients
from edge_limiter.ratelimit.limiter import Limiter
from edge_limiter.ratelimit.policy import PolicyError
from edge_limiter.ratelimit.policy_file import PolicyWatch, read_policies
from edge_limiter.ratelimit.policy_set import PolicySet, Rule
from edge_limiter.ratelimit.postgres import CONNECT_TIMEOUT_S, PostgresLog
from edge_limiter.ratelimit.shadow import Shadows
from edge_limiter.server.connection_limits import ConnectionLimiter, MemoryBudget, SlowReaders
from edge_limiter.server.http_server import HttpServer, Timeouts
from edge_limiter.settings import ADMIN_POLICY, BACKGROUND_CONNECTIONS, EdgeSettings, split
from edge_limiter.upstream.client import UpstreamClient
from edge_limiter.upstream.errors import BadGateway

log = structlog.get_logger()

SCHEMA: Final = "edge"
_LEAVE_TIMEOUT_S: Final = 0.5
_PROBE_TIMEOUT_S: Final = 1.0
_UPSTREAM_CONNECT_TIMEOUT_S: Final = 2.0
_UPSTREAM_IDLE_TIMEOUT_S: Final = 60.0  # between two parts of a body
_PROBED: Final = {INFERENCE: "/v2/health/ready"}  # of an upstream that says whether it can answer
_PROBED_ELSE: Final = "/openapi.json"


def migrate_schema(settings: EdgeSettings) -> None:
    """Bring the schema `edge` up to date."""
    migrate(settings.database_url.get_secret_value(), package="edge_limiter", schema=SCHEMA)


@dataclass(slots=True)
class _Opened:
    """What the ops port reads; None until it is open."""

    limits: Limits | None = None


@dataclass(frozen=True, slots=True)
class _Parts:
    """What exists before the event loop runs."""

    settings: EdgeSettings
    policies: PolicySet
    registry: CollectorRegistry
    http: HttpMetrics
    metrics: EdgeMetrics
    store: PostgresLog
    routes: RouteTable
    fatal: asyncio.Event


def create_service(settings: EdgeSettings) -> Service:
    """Build the edge. Raises StartError if it could not keep its promises."""
    registry, fatal, opened = create_registry(), asyncio.Event(), _Opened()
    parts = _Parts(
        settings=settings,
        policies=_policies(settings),
        registry=registry,
        http=HttpMetrics(registry),
        metrics=EdgeMetrics(registry),
        store=_store(settings),
        routes=RouteTable(ROUTES),
        fatal=fatal,
    )

    async def read_limits(request: web.Request) -> web.Response:
        return await opened.limits.read(request) if opened.limits is not None else Problem(503).response()

    def add_ops_routes(ops_app: web.Application) -> None:
        ops_app.router.add_get("/limits", read_limits)

    return Service(
        lambda: _open(parts, opened),
        _readiness(parts.store),
        registry,
        settings.listen(),
        settings.sluice_drain_s,
        ops=add_ops_routes,
        fatal=fatal,
    )


def _store(settings: EdgeSettings) -> PostgresLog:
    return PostgresLog(
        settings.database_url.get_secret_value(),
        durable=settings.edge_limit_durable,
        timeout_s=settings.edge_limit_timeout_ms / 1000,
    )


def _policies(settings: EdgeSettings) -> PolicySet:
    defaults = settings.policies()
    if not settings.edge_policy_file:
        return PolicySet(defaults)
    try:
        return PolicySet(defaults, read_policies(Path(settings.edge_policy_file)))
    except PolicyError as error:
        raise StartError(f"EDGE_POLICY_FILE {settings.edge_policy_file}: {error}") from error


def _readiness(store: PostgresLog) -> Readiness:
    async def database() -> State:
        return "ok" if store.is_up else "degraded"

    return Readiness({"database": database})


@asynccontextmanager
async def _open(parts: _Parts, opened: _Opened) -> AsyncIterator[HttpServer]:
    """Open everything and yield the server; close in reverse."""
    async with AsyncExitStack() as stack:
        redis = create_client(parts.settings)
        stack.push_async_callback(redis.aclose)
        rejections = RejectionCounters(redis, parts.metrics.counters_dropped)
        stack.push_async_callback(rejections.close)
        await stack.enter_async_context(supervised(rejections.run(), "rejection counters", parts.fatal))
        housekeeping = await _open_housekeeping(stack, parts)
        limiter = await _open_limiter(stack, parts, housekeeping)
        upstreams = _open_upstreams(stack, parts)
        if parts.settings.edge_policy_file:
            watch = PolicyWatch(Path(parts.settings.edge_policy_file), parts.policies)
            await stack.enter_async_context(supervised(watch.run(), "policy file", parts.fatal))
        shadows = Shadows(limiter, parts.metrics.decisions)
        stack.push_async_callback(shadows.close)
        clients = Clients(
            split(parts.settings.edge_trusted_proxies),
            ipv6_prefix=parts.settings.edge_ipv6_prefix,
            on_undeclared_proxy=_warn_of_undeclared_proxy,
        )
        opened.limits = Limits(parts.policies, limiter, clients, housekeeping.used)
        local = local_handlers(parts.routes, _health(parts, housekeeping, redis, upstreams))
        handler = _handler(parts, limiter, clients, upstreams, rejections, shadows, local)
        server = _server(parts, handler, clients)
        parts.metrics.watch_bytes(lambda: server.bytes)
        parts.metrics.watch_room(lambda: server.budget.held_bytes)
        parts.http.watch(lambda: server.in_flight)
        await stack.enter_async_context(supervised(server.run(), "http server", parts.fatal))
        yield server


async def _open_housekeeping(stack: AsyncExitStack, parts: _Parts) -> Housekeeping:
    pool = create_pool(
        parts.settings.database_url.get_secret_value(),
        schema=SCHEMA,
        application="edge-limiter housekeeping",
        size=BACKGROUND_CONNECTIONS,
    )
    await pool  # opens no connection yet
    stack.callback(pool.terminate)  # closing politely can wait for a server that hangs
    housekeeping = Housekeeping(pool, uuid7(), parts.settings.edge_replicas)
    stack.push_async_callback(_leave, housekeeping)
    await stack.enter_async_context(supervised(housekeeping.run(), "housekeeping", parts.fatal))
    return housekeeping


async def _leave(housekeeping: Housekeeping) -> None:
    try:
        async with asyncio.timeout(_LEAVE_TIMEOUT_S):
            await housekeeping.leave()
    except POSTGRES_ERRORS:
        log.debug("the heartbeat row is left to expire")


async def _open_limiter(stack: AsyncExitStack, parts: _Parts, housekeeping: Housekeeping) -> Limiter:
    settings, store = parts.settings, parts.store
    limiter = Limiter(
        store,
        timeout_s=settings.edge_limit_timeout_ms / 1000,
        hash_key=settings.events_hash_key.get_secret_value().encode(),
        replicas=lambda: housekeeping.replicas,
        observe_keys=parts.metrics.batch_keys.observe,
        observe_wait_s=parts.metrics.wait_s.observe,
    )
    parts.metrics.watch_store(lambda: store.is_up, lambda: housekeeping.replicas)
    await stack.enter_async_context(supervised(store.run(), "limiter store", parts.fatal))
    await stack.enter_async_context(supervised(limiter.run(), "limiter", parts.fatal))
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await store.wait_up()
    except TimeoutError:
        log.warning("starting without PostgreSQL", limits=settings.edge_on_store_error)
    return limiter


def _open_upstreams(stack: AsyncExitStack, parts: _Parts) -> dict[str, UpstreamClient]:
    settings = parts.settings

    def upstream(name: str, origin: str) -> UpstreamClient:
        upstream = UpstreamClient(
            origin,
            connect_timeout_s=_UPSTREAM_CONNECT_TIMEOUT_S,
            idle_timeout_s=_UPSTREAM_IDLE_TIMEOUT_S,
            max_in_flight=settings.edge_upstream_limit,
            observe=parts.metrics.upstream_observer(name),
        )
        stack.callback(upstream.close)
        parts.metrics.watch_upstream(name, lambda: upstream.in_flight)
        return upstream

    return {name: upstream(name, origin) for name, origin in settings.upstreams().items()}


def _handler(
    parts: _Parts,
    limiter: Limiter,
    clients: Clients,
    upstreams: dict[str, UpstreamClient],
    rejections: RejectionCounters,
    shadows: Shadows,
    local: dict[str, LocalHandler],
) -> ProxyHandler:
    settings = parts.settings
    admin = Admin(settings.edge_admin_token.get_secret_value(), is_loopback=settings.is_local)
    forwarder = Forwarder(upstreams, admin)
    enforcer = Enforcer(
        policies=parts.policies,
        limiter=limiter,
        clients=clients,
        admin=admin,
        wrong_tokens=Rule(settings.policies()[ADMIN_POLICY]),
        shadows=shadows,
        rejections=rejections,
        decisions=parts.metrics.decisions,
    )
    return ProxyHandler(
        routes=parts.routes,
        local=local,
        check=check_handler(parts.routes, enforcer),
        enforcer=enforcer,
        forwarder=forwarder,
        metrics=parts.http,
        budget_s=min(settings.edge_timeout_s, settings.edge_max_timeout_s),
        budgets_s={ANALYST: min(settings.edge_analyze_timeout_s, settings.edge_max_timeout_s)},
        max_budget_s=settings.edge_max_timeout_s,
        hash_client=ClientHasher(settings.events_hash_key.get_secret_value()),
        is_local=settings.is_local,
    )


def _server(parts: _Parts, handler: ProxyHandler, clients: Clients) -> HttpServer:
    def client_of(peer: str) -> bytes | None:
        client = clients.of(peer)
        return None if client.via_trusted_proxy else client.bucket

    settings, report = parts.settings, parts.metrics.connection_refused
    return HttpServer(
        handler.handle,
        Timeouts(keep_alive_s=settings.edge_keepalive_s),
        ConnectionLimiter(settings.edge_max_connections, report),
        MemoryBudget(settings.edge_body_memory_bytes),
        SlowReaders(report=report),
        client_of,
    )


def _warn_of_undeclared_proxy(_peer: str) -> None:
    log.warning(
        "X-Forwarded-For from a private address is ignored: "
        "if that is your ingress, name it in EDGE_TRUSTED_PROXIES, or all its clients share one limit"
    )


def _health(
    parts: _Parts, housekeeping: Housekeeping, redis: Redis, upstreams: dict[str, UpstreamClient]
) -> HealthReport:
    async def write_to_redis() -> float:
        started = time.perf_counter()
        await check_writable(redis, STREAM)
        return (time.perf_counter() - started) * 1000

    def limits() -> Literal["exact", "local", "open", "closed"]:
        return "exact" if parts.store.is_up else parts.settings.edge_on_store_error

    return HealthReport(
        database=housekeeping.ping_ms,
        redis=write_to_redis,
        upstreams={
            name: _upstream_probe(upstream, _PROBED.get(name, _PROBED_ELSE)) for name, upstream in upstreams.items()
        },
        analyst=_analyst_health(upstreams[ANALYST]),
        limits=limits,
        required=INFERENCE,
    )


def _upstream_probe(upstream: UpstreamClient, path: str) -> Probe:
    async def probe() -> float:
        started = time.perf_counter()
        with await upstream("HEAD", path, [], b"", _PROBE_TIMEOUT_S) as answer:
            if answer.status >= 500:
                raise BadGateway
        return (time.perf_counter() - started) * 1000

    return probe


def _analyst_health(upstream: UpstreamClient) -> AskAnalyst:
    async def ask() -> AnalystHealth:
        with await upstream("GET", "/analyze/health", [], b"", _PROBE_TIMEOUT_S) as answer:
            return AnalystHealth.model_validate_json(await answer.read())

    return ask

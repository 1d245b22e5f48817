"""The composition root: builds each object of the edge once and hands it to those that need it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from common.http.context import uuid7
from common.http.problems import Problem
from common.journal.recorder import ClientHasher
from common.runtime.metrics import HttpMetrics, create_registry
from common.runtime.readiness import Readiness, State
from common.runtime.settings import StartError
from common.runtime.tasks import supervised
from common.service import Service
from common.stores.postgres import create_pool, migrate
from common.stores.redis import create_client
from edge_limiter.check.http import check_handler
from edge_limiter.check.lookup import LimitLookup
from edge_limiter.metrics import ByteCounter, EdgeMetrics
from edge_limiter.pages.health import HealthReport, redis_probe, upstream_probe
from edge_limiter.pages.info import local_handlers
from edge_limiter.proxy.admin import Admin
from edge_limiter.proxy.enforcement import Enforcer
from edge_limiter.proxy.forward import Forwarder
from edge_limiter.proxy.handler import LocalHandler, ProxyHandler
from edge_limiter.proxy.rejections import RejectionCounters
from edge_limiter.proxy.routes import ANALYST, ROUTES, RouteTable
from edge_limiter.ratelimit.housekeeping import Housekeeping
from edge_limiter.ratelimit.identity import Clients
from edge_limiter.ratelimit.limiter import Limiter
from edge_limiter.ratelimit.policy import PolicyError
from edge_limiter.ratelimit.policy_file import PolicyWatch, read_policies
from edge_limiter.ratelimit.policy_set import PolicySet, Rule
from edge_limiter.ratelimit.postgres import CONNECT_TIMEOUT_S, PostgresLog
from edge_limiter.ratelimit.shadow import Shadows
from edge_limiter.server.budget import Budget
from edge_limiter.server.http_server import HttpServer, Timeouts
from edge_limiter.settings import ADMIN_POLICY, BACKGROUND_CONNECTIONS, EdgeSettings, split
from edge_limiter.upstream.client import UpstreamClient

log = structlog.get_logger()

SCHEMA: Final = "edge"
MAX_CONNECTIONS: Final = 20_000


def migrate_schema(settings: EdgeSettings) -> None:
    """Bring the schema `edge` up to date."""
    migrate(settings.database_url.get_secret_value(), package="edge_limiter", schema=SCHEMA)


@dataclass(slots=True)
class _Parts:
    """What exists before the event loop runs, and what the ops port reads: None until it is open."""

    settings: EdgeSettings
    policies: PolicySet
    registry: CollectorRegistry
    http: HttpMetrics
    metrics: EdgeMetrics
    store: PostgresLog
    routes: RouteTable
    fatal: asyncio.Event
    lookup: LimitLookup | None = None


def create_service(settings: EdgeSettings) -> Service:
    """Build the edge. Raises StartError if it could not keep its promises."""
    registry = create_registry()
    parts = _Parts(
        settings=settings,
        policies=_policies(settings),
        registry=registry,
        http=HttpMetrics(registry),
        metrics=EdgeMetrics(registry),
        store=PostgresLog(
            settings.database_url.get_secret_value(),
            durable=settings.edge_limit_durable,
            timeout_s=settings.edge_limit_timeout_ms / 1000,
        ),
        routes=RouteTable(ROUTES),
        fatal=asyncio.Event(),
    )

    async def read_limits(request: web.Request) -> web.Response:
        return await parts.lookup.read(request) if parts.lookup is not None else Problem(503).response()

    def add_ops_routes(ops_app: web.Application) -> None:
        ops_app.router.add_get("/limits", read_limits)

    return Service(
        lambda: _open(parts),
        _readiness(parts),
        registry,
        settings.listen(),
        settings.sluice_drain_s,
        ops=add_ops_routes,
        fatal=parts.fatal,
    )


def _policies(settings: EdgeSettings) -> PolicySet:
    defaults = settings.policies()
    if not settings.edge_policy_file:
        return PolicySet(defaults)
    try:
        return PolicySet(defaults, read_policies(Path(settings.edge_policy_file)))
    except PolicyError as error:
        raise StartError(f"EDGE_POLICY_FILE {settings.edge_policy_file}: {error}") from error


def _readiness(parts: _Parts) -> Readiness:
    async def database() -> State:
        return "ok" if parts.store.is_up else "degraded"

    return Readiness({"database": database})


@asynccontextmanager
async def _open(parts: _Parts) -> AsyncIterator[HttpServer]:
    """Open everything and yield the server; close in reverse."""
    settings = parts.settings
    async with AsyncExitStack() as stack:
        redis = create_client(settings)
        stack.push_async_callback(redis.aclose)
        hash_client = ClientHasher(settings.events_hash_key.get_secret_value())
        rejections = RejectionCounters(redis, hash_client, parts.metrics.counters_dropped)
        stack.push_async_callback(rejections.close)
        await stack.enter_async_context(supervised(rejections.run(), "rejection counters", parts.fatal))
        housekeeping = await _open_housekeeping(stack, parts)
        limiter = await _open_limiter(stack, parts, housekeeping)
        upstreams = {name: _open_upstream(stack, parts, name, origin) for name, origin in settings.upstreams().items()}
        if settings.edge_policy_file:
            watch = PolicyWatch(Path(settings.edge_policy_file), parts.policies)
            await stack.enter_async_context(supervised(watch.run(), "policy file", parts.fatal))
        shadows = Shadows(limiter, parts.metrics.decisions)
        stack.push_async_callback(shadows.close)
        clients = Clients(split(settings.edge_trusted_proxies))
        parts.lookup = LimitLookup(parts.policies, limiter, clients, housekeeping.used)
        local = local_handlers(parts.routes, _health(parts, housekeeping, redis, upstreams))
        server = _server(
            parts, _handler(parts, limiter, clients, upstreams, rejections, shadows, local, hash_client), clients
        )
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
    stack.callback(pool.terminate)  # an orderly close can wait for a server that hangs
    housekeeping = Housekeeping(pool, uuid7(), parts.settings.edge_replicas)
    stack.push_async_callback(housekeeping.leave)
    await stack.enter_async_context(supervised(housekeeping.run(), "housekeeping", parts.fatal))
    parts.metrics.replicas.set_function(lambda: housekeeping.replicas)
    return housekeeping


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
    parts.metrics.store_up.set_function(lambda: store.is_up)
    await stack.enter_async_context(supervised(store.run(), "limiter store", parts.fatal))
    await stack.enter_async_context(supervised(limiter.run(), "limiter", parts.fatal))
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await store.wait_up()
    except TimeoutError:
        log.warning("starting without PostgreSQL", limits=settings.edge_on_store_error)
    return limiter


def _open_upstream(stack: AsyncExitStack, parts: _Parts, name: str, origin: str) -> UpstreamClient:
    upstream = UpstreamClient(
        origin,
        max_in_flight=parts.settings.edge_upstream_limit,
        observe=parts.metrics.upstream_s.labels(name).observe,
    )
    stack.callback(upstream.close)
    parts.metrics.upstream_in_flight.labels(name).set_function(lambda: upstream.in_flight)
    return upstream


def _handler(
    parts: _Parts,
    limiter: Limiter,
    clients: Clients,
    upstreams: dict[str, UpstreamClient],
    rejections: RejectionCounters,
    shadows: Shadows,
    local: dict[str, LocalHandler],
    hash_client: ClientHasher,
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
        hash_client=hash_client,
        is_local=settings.is_local,
    )


def _server(parts: _Parts, handler: ProxyHandler, clients: Clients) -> HttpServer:
    def client_of(peer: str) -> bytes | None:
        client = clients.of(peer)
        return None if client.via_trusted_proxy else client.bucket

    settings = parts.settings
    memory = Budget("memory", settings.edge_body_memory_bytes)
    server = HttpServer(
        handler.handle,
        connections=Budget("connections", MAX_CONNECTIONS, parts.metrics.connection_refused),
        memory=memory,
        client_of=client_of,
        timeouts=Timeouts(keep_alive_s=settings.edge_keepalive_s),
    )
    parts.registry.register(ByteCounter(lambda: (server.received_bytes, server.sent_bytes)))
    parts.metrics.body_bytes.set_function(lambda: memory.taken)
    parts.http.watch(lambda: server.in_flight)
    return server


def _health(
    parts: _Parts, housekeeping: Housekeeping, redis: Redis, upstreams: dict[str, UpstreamClient]
) -> HealthReport:
    return HealthReport(
        database=housekeeping.ping_ms,
        redis=redis_probe(redis),
        upstreams={name: upstream_probe(name, upstream) for name, upstream in upstreams.items()},
        limits=lambda: "exact" if parts.store.is_up else parts.settings.edge_on_store_error,
    )

"""The composition root: builds each object of the edge once and hands it to those that need it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from common.http.context import uuid7
from common.journal.recorder import ClientHasher
from common.runtime.metrics import HttpMetrics, create_registry
from common.runtime.readiness import Readiness, State
from common.runtime.settings import StartError
from common.runtime.tasks import supervised
from common.service import Service
from common.stores.postgres import create_pool
from common.stores.redis import create_client
from edge_limiter.check.http import check_handler
from edge_limiter.metrics import EdgeMetrics
from edge_limiter.pages.health import HealthReport, redis_probe, upstream_probe
from edge_limiter.pages.info import local_handlers
from edge_limiter.proxy.admin import Admin
from edge_limiter.proxy.enforcement import Enforcer
from edge_limiter.proxy.forward import Forwarder
from edge_limiter.proxy.handler import ProxyHandler
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
from edge_limiter.server.http_server import HttpServer
from edge_limiter.settings import ADMIN_POLICY, BACKGROUND_CONNECTIONS, EdgeSettings, split
from edge_limiter.upstream.client import UpstreamClient

log = structlog.get_logger()

SCHEMA: Final = "edge"
MAX_CONNECTIONS: Final = 20_000


def migrate_schema(settings: EdgeSettings) -> None:
    """Bring the schema `edge` up to date."""
    from common.stores.migrations import migrate  # loads SQLAlchemy, which a running edge does not need

    migrate(settings.database_url.get_secret_value(), package="edge_limiter", schema=SCHEMA)


def create_service(settings: EdgeSettings) -> Service:
    """Build the edge. Raises StartError if it could not keep its promises."""
    edge = _Edge(settings)
    return Service(
        edge.open,
        Readiness({"database": edge.database_state}),
        edge.registry,
        settings.listen(),
        settings.sluice_drain_s,
        fatal=edge.fatal,
    )


def _policies(settings: EdgeSettings) -> PolicySet:
    defaults = settings.policies()
    if not settings.edge_policy_file:
        return PolicySet(defaults)
    try:
        return PolicySet(defaults, read_policies(Path(settings.edge_policy_file)))
    except PolicyError as error:
        raise StartError(f"EDGE_POLICY_FILE {settings.edge_policy_file}: {error}") from error


class _Edge:
    """Holds what exists before the event loop runs, and opens the rest on `stack`."""

    def __init__(self, settings: EdgeSettings) -> None:
        self.settings = settings
        self.policies = _policies(settings)
        self.registry = create_registry()
        self.http_metrics = HttpMetrics(self.registry)
        self.metrics = EdgeMetrics(self.registry)
        self.store = PostgresLog(
            settings.database_url.get_secret_value(),
            durable=settings.edge_limit_durable,
            timeout_s=settings.edge_limit_timeout_ms / 1000,
        )
        self.routes = RouteTable(ROUTES)
        self.clients = Clients(split(settings.edge_trusted_proxies))
        self.hash_client = ClientHasher(settings.events_hash_key.get_secret_value())
        self.fatal = asyncio.Event()
        self.stack = AsyncExitStack()

    async def database_state(self) -> State:
        return "ok" if self.store.is_up else "degraded"

    @asynccontextmanager
    async def open(self) -> AsyncIterator[HttpServer]:
        """Open everything and yield the server; close in reverse."""
        settings = self.settings
        async with self.stack:
            redis = create_client(settings)
            self.stack.push_async_callback(redis.aclose)
            rejections = RejectionCounters(redis, self.hash_client)
            self.stack.push_async_callback(rejections.close)
            await self._supervise(rejections.run(), "rejection counters")
            housekeeping = await self._open_housekeeping()
            limiter = await self._open_limiter(housekeeping)
            upstreams = {name: self._open_upstream(name, origin) for name, origin in settings.upstreams().items()}
            if settings.edge_policy_file:
                watch = PolicyWatch(Path(settings.edge_policy_file), self.policies)
                await self._supervise(watch.run(), "policy file")
            health = HealthReport(
                database=housekeeping.ping_ms,
                redis=redis_probe(redis),
                upstreams={name: upstream_probe(name, upstream) for name, upstream in upstreams.items()},
                limits=lambda: "exact" if self.store.is_up else settings.edge_on_store_error,
            )
            server = self._server(self._handler(limiter, upstreams, rejections, health))
            await self._supervise(server.run(), "http server")
            yield server

    async def _supervise(self, work: Coroutine[None, None, None], name: str) -> None:
        """Run a background task until the edge closes."""
        await self.stack.enter_async_context(supervised(work, name, self.fatal))

    async def _open_housekeeping(self) -> Housekeeping:
        pool = create_pool(
            self.settings.database_url.get_secret_value(),
            schema=SCHEMA,
            application="edge-limiter housekeeping",
            size=BACKGROUND_CONNECTIONS,
        )
        await pool  # opens no connection yet
        self.stack.callback(pool.terminate)  # an orderly close can wait for a server that hangs
        housekeeping = Housekeeping(pool, uuid7(), self.settings.edge_replicas)
        await self._supervise(housekeeping.run(), "housekeeping")
        self.metrics.replicas.set_function(lambda: housekeeping.replicas)
        return housekeeping

    async def _open_limiter(self, housekeeping: Housekeeping) -> Limiter:
        settings, store = self.settings, self.store
        limiter = Limiter(
            store,
            timeout_s=settings.edge_limit_timeout_ms / 1000,
            hash_key=settings.events_hash_key.get_secret_value().encode(),
            replicas=lambda: housekeeping.replicas,
            observe_s=self.metrics.wait_s.observe,
        )
        self.metrics.store_up.set_function(lambda: store.is_up)
        await self._supervise(store.run(), "limiter store")
        await self._supervise(limiter.run(), "limiter")
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await store.wait_up()
        except TimeoutError:
            log.warning("starting without PostgreSQL", limits=settings.edge_on_store_error)
        return limiter

    def _open_upstream(self, name: str, origin: str) -> UpstreamClient:
        observe = self.metrics.upstream_s.labels(name).observe
        upstream = UpstreamClient(origin, max_in_flight=self.settings.edge_upstream_limit, observe=observe)
        self.stack.callback(upstream.close)
        self.metrics.upstream_in_flight.labels(name).set_function(lambda: upstream.in_flight)
        return upstream

    def _handler(
        self,
        limiter: Limiter,
        upstreams: dict[str, UpstreamClient],
        rejections: RejectionCounters,
        health: HealthReport,
    ) -> ProxyHandler:
        settings = self.settings
        admin = Admin(settings.edge_admin_token.get_secret_value(), is_loopback=settings.is_local)
        shadows = Shadows(limiter, self.metrics.decisions)
        enforcer = Enforcer(
            policies=self.policies,
            limiter=limiter,
            clients=self.clients,
            admin=admin,
            wrong_tokens=Rule(settings.policies()[ADMIN_POLICY]),
            shadows=shadows,
            rejections=rejections,
            decisions=self.metrics.decisions,
        )
        return ProxyHandler(
            routes=self.routes,
            local=local_handlers(self.routes, health),
            check=check_handler(self.routes, enforcer),
            enforcer=enforcer,
            forwarder=Forwarder(upstreams, admin),
            metrics=self.http_metrics,
            budget_s=min(settings.edge_timeout_s, settings.edge_max_timeout_s),
            budgets_s={ANALYST: min(settings.edge_analyze_timeout_s, settings.edge_max_timeout_s)},
            max_budget_s=settings.edge_max_timeout_s,
            hash_client=self.hash_client,
            is_local=settings.is_local,
        )

    def _server(self, handler: ProxyHandler) -> HttpServer:
        def client_of(peer: str) -> bytes | None:
            client = self.clients.of(peer)
            return None if client.via_trusted_proxy else client.bucket

        memory = Budget("memory", self.settings.edge_body_memory_bytes)
        server = HttpServer(
            handler.handle,
            connections=Budget("connections", MAX_CONNECTIONS, self.metrics.connection_refused),
            memory=memory,
            client_of=client_of,
            keep_alive_s=self.settings.edge_keepalive_s,
        )
        self.metrics.body_bytes.set_function(lambda: memory.taken)
        self.http_metrics.watch(lambda: server.in_flight)
        return server

"""The edge's tests run the real app on real stores, in front of an upstream that the test writes itself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from common.http.server import Runner
from common.runtime.settings import load
from common.service import Service, create_runner
from edge_limiter.app import create_service
from edge_limiter.settings import EdgeSettings

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class RunningEdge:
    """A started edge, and a client of it."""

    service: Service
    runner: Runner
    port: int
    http: aiohttp.ClientSession

    async def store_is_up(self) -> None:
        """Wait until the store decides: on a busy machine the edge may start without it."""
        async with asyncio.timeout(60):
            while not self.sample("sluice_edge_store_up"):
                await asyncio.sleep(0.01)

    async def health(self, is_awaited: Callable[[dict[str, Any]], bool]) -> tuple[int, dict[str, Any]]:
        """Return the first status and document that are expected: probes may time out on a busy machine."""
        async with asyncio.timeout(60):
            while True:
                async with self.http.get("/health") as response:
                    document: dict[str, Any] = await response.json()
                    if is_awaited(document):
                        return response.status, document
                await asyncio.sleep(0.01)

    def sample(self, name: str, **labels: str) -> float:
        """Return the value of a Prometheus sample, 0 if it does not exist yet."""
        return self.service.registry.get_sample_value(name, labels) or 0.0

    async def post(self, path: str = "/predict", **options: Any) -> int:
        async with self.http.post(path, **{"json": {"text": "fine"}, **options}) as response:
            await response.read()
            return response.status


@pytest.fixture(autouse=True)
def patient_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow a busy machine time to connect."""
    monkeypatch.setattr("edge_limiter.ratelimit.postgres.CONNECT_TIMEOUT_S", 60.0)


@pytest.fixture
def edge_database(migrated_url: Callable[..., str]) -> str:
    return migrated_url("edge_limiter")


@pytest.fixture
async def database(edge_database: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(edge_database)
    try:
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def start_upstream() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Call it with a handler of all requests for the origin of a server."""
    async with AsyncExitStack() as stack:

        async def start(handler: Handler) -> str:
            app = web.Application(client_max_size=1 << 30)
            app.router.add_route("*", "/{path:.*}", handler)
            server = TestServer(app)
            await server.start_server()
            stack.push_async_callback(server.close)
            return f"http://127.0.0.1:{server.port}"

        yield start


@pytest.fixture
async def start_raw_upstream() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Call it with a stream handler for the origin of a server that may break any rule of HTTP."""
    async with AsyncExitStack() as stack:

        async def start(handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> str:
            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                try:
                    await handler(reader, writer)
                finally:
                    writer.close()

            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            stack.callback(server.close)
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield start


@pytest.fixture
async def start_edge(
    edge_database: str, free_port: Callable[[], int]
) -> AsyncIterator[Callable[..., Awaitable[RunningEdge]]]:
    """Call it with variables (`EDGE_RATE_LIMIT="5"`) for a running edge; Redis and the services are down by default.

    It has its store, unless a DATABASE_URL is given. It takes any Host, unless EDGE_HOST is loopback.
    """
    async with AsyncExitStack() as stack:

        async def start(**variables: str) -> RunningEdge:
            closed = f"http://127.0.0.1:{free_port()}"
            defaults = {
                "DATABASE_URL": edge_database,
                "REDIS_HOST": "127.0.0.1",
                "REDIS_PORT": str(free_port()),
                "EDGE_HOST": "0.0.0.0",
                "EVENTS_HASH_KEY": "key",
                "EDGE_LIMIT_TIMEOUT_MS": "10000",
                "REDIS_TIMEOUT_S": "60",
                **{f"EDGE_UPSTREAM_{name}": closed for name in ("INFERENCE", "METRICS", "ANALYST")},
            }
            service = create_service(load(EdgeSettings, {**defaults, **variables}))
            runner = create_runner(service)
            stack.push_async_callback(runner.cleanup)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            port = runner.addresses[0][1]
            connector = aiohttp.TCPConnector(limit=0)
            http = aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector)
            await stack.enter_async_context(http)
            edge = RunningEdge(service, runner, port, http)
            if "DATABASE_URL" not in variables:
                await edge.store_is_up()
            return edge

        yield start

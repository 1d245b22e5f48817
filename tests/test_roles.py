"""`deploy/postgres/roles.sql`: each service migrates and works under its role, which cannot reach other tables."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from made_up import prediction

from analyst.report.models import Report, Windows
from analyst.report.store import ReportStoreLimits, open_report_store
from common.contracts.windows import TimeRange
from common.http.context import uuid7
from common.stores.postgres import create_pool
from edge_limiter.ratelimit.batcher import Query
from edge_limiter.ratelimit.housekeeping import Housekeeping
from edge_limiter.ratelimit.postgres import PostgresLog
from launcher.testing import migrate
from metrics.ingest.writer import EventWriter
from metrics.query.rollups import Rollups
from metrics.storage.database import Database
from metrics.storage.partitions import Partitions

ROLES = (Path(__file__).parents[1] / "deploy/postgres/roles.sql").read_text()
PACKAGES = {"edge": "edge_limiter", "metrics": "metrics", "analyst": "analyst"}
TABLES = {"edge": "edge.admissions", "metrics": "metrics.prediction", "analyst": "analyst.report"}
PASSWORD = "secret"
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Server:
    """One database with an owner, and the roles of the services."""

    def __init__(self, admin_url: str) -> None:
        self._admin = urlsplit(admin_url)
        self.name = self._admin.path.lstrip("/")
        self.owner = f"{self.name}_owner"
        self.admin_url = admin_url

    def url(self, role: str) -> str:
        return self._admin._replace(netloc=f"{role}:{PASSWORD}@{self._admin.hostname}:{self._admin.port}").geturl()

    def service_url(self, service: str) -> str:
        return self.url(f"{self.name}_{service}")

    async def execute(self, url: str, *statements: str) -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def make_roles(self) -> None:
        """Run `roles.sql` as the owner, without superuser rights."""
        roles = [f"{self.name}_{service}" for service in PACKAGES]
        passwords = [f"ALTER ROLE {role} PASSWORD '{PASSWORD}'" for role in roles]
        await self.execute(self.url(self.owner), ROLES, *passwords)


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    server = Server(database_url)
    await server.execute(
        database_url,
        f"CREATE ROLE {server.owner} LOGIN CREATEROLE PASSWORD '{PASSWORD}'",
        f"ALTER DATABASE {server.name} OWNER TO {server.owner}",
    )
    yield server
    await server.execute(database_url, f"ALTER DATABASE {server.name} OWNER TO CURRENT_USER")
    connection = await asyncpg.connect(database_url)
    for (role,) in await connection.fetch("SELECT rolname FROM pg_roles WHERE starts_with(rolname, $1)", server.name):
        if role.removeprefix(server.name) in {"_owner", *(f"_{service}" for service in PACKAGES)}:
            await connection.execute(f"DROP OWNED BY {role} CASCADE")
            await connection.execute(f"DROP ROLE {role}")
    await connection.close()


async def use_edge(url: str) -> None:
    log = PostgresLog(url, durable=False)
    task = asyncio.create_task(log.run())
    try:
        async with asyncio.timeout(60):
            await log.wait_up()
        [verdict] = await log.decide([Query(b"key", 1, 1, 10, 600)])
        assert verdict.admitted == 1
    finally:
        task.cancel()
        await asyncio.wait([task])
    async with create_pool(url, schema="edge", application="test") as pool:
        housekeeping = Housekeeping(pool, str(uuid.uuid4()))
        await housekeeping.beat()
        await housekeeping.collect()


@asynccontextmanager
async def metrics_database(url: str) -> AsyncIterator[Database]:
    async with create_pool(url, schema="metrics", application="test", timeout_s=20) as pool:
        yield Database(pool, 20)


async def use_metrics(url: str) -> None:
    """Create partitions, write, and drop the partition of a month ago."""
    async with metrics_database(url) as database:
        before = await Rollups(database).count()
        for days in (40, 0):
            at = AT - timedelta(days=days)
            maintenance = Partitions(database, retention_days=30, ahead_days=1, now=at.timestamp)
            assert (await maintenance.maintain()).failed == 0
            assert (await EventWriter(database).write([prediction(at.timestamp())])).predictions == 1
        assert await Rollups(database).count() == before + 2


async def use_analyst(url: str) -> None:
    lost: list[None] = []
    made = report()
    async with open_report_store(
        url, ReportStoreLimits(keep_days=3650, timeout_s=20), lambda: lost.append(None), asyncio.Event()
    ) as archive:
        archive.keep(made)
        await archive.drain()
        assert await archive.get(str(made.report_id)) == made
    assert lost == []


def report() -> Report:
    hour = TimeRange(start=AT - timedelta(hours=1), end=AT)
    return Report(
        report_id=uuid7(), generated_at=AT, status="healthy", summary="Healthy.", figures=[], findings=[],
        recommendations=[], source="rules", fallback_reason="no_key", cache="miss", model=None, prompt_version="1",
        metrics_digest="0" * 64, windows=Windows(name="1h", current=hour, previous=hour),
        incident=None, interpretation=None, usage=None, limitations=[],
    )  # fmt: skip


USES = {"edge": use_edge, "metrics": use_metrics, "analyst": use_analyst}


async def work(urls: Callable[[str], str]) -> None:
    for service, use in USES.items():
        await use(urls(service))


async def test_each_service__works_under_its_role_and_cannot_reach_other_tables(server: Server) -> None:
    await server.make_roles()
    await server.make_roles()
    for service, package in PACKAGES.items():
        await asyncio.to_thread(migrate, package, server.service_url(service))
    await work(server.service_url)
    for service in PACKAGES:
        stranger = await asyncpg.connect(server.service_url(service))
        await stranger.execute(f"SELECT * FROM {TABLES[service]}")
        for other in PACKAGES.keys() - {service}:
            for attempt in attempts(f"{server.name}_{other}", other):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await stranger.execute(attempt)
        await stranger.close()


def attempts(role: str, service: str) -> list[str]:
    """Return statements that the roles of other services must not run."""
    table = TABLES[service]
    return [
        f"SELECT * FROM {table}",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE {table} ADD COLUMN more text",
        f"DROP SCHEMA {service} CASCADE",
        f"CREATE TABLE {service}.more (a text)",
        f"SET ROLE {role}",
        "CREATE SCHEMA more",
    ]


async def test_one_role_for_all__hands_over_its_tables_while_services_run(server: Server) -> None:
    def former(_service: str) -> str:
        return server.url(server.owner)

    for package in PACKAGES.values():
        await asyncio.to_thread(migrate, package, server.url(server.owner))
    await work(former)
    await server.make_roles()
    await work(former)
    for service, package in PACKAGES.items():
        await asyncio.to_thread(migrate, package, server.service_url(service))
    await work(server.service_url)
    await server.make_roles()  # recent tables change owner too
    owners = "SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE relnamespace = 'metrics'::regnamespace"
    connection = await asyncpg.connect(server.admin_url)
    assert [owner for (owner,) in await connection.fetch(owners)] == [f"{server.name}_metrics"]
    await connection.close()

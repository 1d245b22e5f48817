"""Connection pools and migrations."""

import asyncio
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import asyncpg
import pytest
from structlog.testing import capture_logs

from common.runtime.settings import StartError
from common.stores.migrations import migrate
from common.stores.postgres import POSTGRES_ERRORS, create_pool, expire_if_read_only
from launcher.postgres import Postgres

FIRST = 'op.execute("CREATE TABLE thing (id int PRIMARY KEY)")'
SECOND = 'op.execute("INSERT INTO thing VALUES (1)")'
BROKEN = 'op.execute("INSERT INTO nowhere VALUES (1)")'


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call it with the bodies of revisions for the name of an importable package that has them."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(*bodies: str) -> str:
        name = f"probe_{abs(hash((str(tmp_path), bodies)))}"
        versions = tmp_path / name / "migrations" / "versions"
        versions.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "__init__.py").touch()
        (versions.parent / "env.py").write_text("from common.stores.migrations import run_env\nrun_env()\n")
        for number, body in enumerate(bodies, 1):
            previous = f"000{number - 1}" if number > 1 else None
            (versions / f"000{number}_probe.py").write_text(
                f"from alembic import op\nrevision = '000{number}'\ndown_revision = {previous!r}\n"
                f"def upgrade():\n    {body}\n"
            )
        return name

    return make


async def rows(url: str, query: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def fetch(url: str, query: str) -> list[tuple[object, ...]]:
    return asyncio.run(rows(url, query))


def test_migrate__creates_tables_in_the_schema_and_is_idempotent(
    database_url: str, package: Callable[..., str]
) -> None:
    name = package(FIRST, SECOND)
    for _ in range(2):
        migrate(database_url, package=name, schema="probe")
    assert fetch(database_url, "SELECT id FROM probe.thing") == [(1,)]
    assert fetch(database_url, "SELECT version_num FROM probe.alembic_version") == [("0002",)]
    assert fetch(database_url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_two_services__keep_their_versions_apart(database_url: str, package: Callable[..., str]) -> None:
    migrate(database_url, package=package(FIRST), schema="one")
    migrate(database_url, package=package(FIRST, SECOND), schema="two")
    assert fetch(database_url, "SELECT version_num FROM one.alembic_version") == [("0001",)]
    assert fetch(database_url, "SELECT version_num FROM two.alembic_version") == [("0002",)]


def test_broken_revision__undoes_the_whole_run(database_url: str, package: Callable[..., str]) -> None:
    with pytest.raises(Exception, match="nowhere"):
        migrate(database_url, package=package(FIRST, SECOND, BROKEN), schema="probe")
    assert fetch(database_url, "SELECT count(*) FROM pg_tables WHERE tablename = 'thing'") == [(0,)]
    migrate(database_url, package=package(FIRST, SECOND), schema="probe")


def test_older_release__leaves_a_newer_schema_unchanged(database_url: str, package: Callable[..., str]) -> None:
    migrate(database_url, package=package(FIRST, SECOND, SECOND.replace("1", "2")), schema="probe")
    with capture_logs() as logs:
        migrate(database_url, package=package(FIRST, SECOND), schema="probe")
    assert logs == [
        {
            "event": "schema is newer than this release; nothing to migrate",
            "log_level": "warning",
            "schema": "probe",
            "found": "0003",
            "newest": "0002",
        }
    ]
    assert fetch(database_url, "SELECT id FROM probe.thing ORDER BY id") == [(1,), (2,)]
    assert fetch(database_url, "SELECT version_num FROM probe.alembic_version") == [("0003",)]


@pytest.mark.parametrize("stored", ["0000", "zzzz", "00003", "9f3c2a"])
def test_unknown_version__is_one_line(database_url: str, package: Callable[..., str], stored: str) -> None:
    migrate(database_url, package=package(FIRST), schema="probe")
    fetch(database_url, f"UPDATE probe.alembic_version SET version_num = '{stored}' RETURNING 1")
    with pytest.raises(StartError, match=rf"^probe\.alembic_version holds {stored}, which is no revision of"):
        migrate(database_url, package=package(FIRST), schema="probe")


MIGRATE = """
    import sys
    sys.path.insert(0, sys.argv[1])
    from common.stores.migrations import migrate
    migrate(sys.argv[2], package=sys.argv[3], schema="probe")
"""


def test_concurrent_migrations__all_succeed_and_run_once(
    database_url: str, package: Callable[..., str], tmp_path: Path
) -> None:
    slow = f'op.execute("SELECT pg_sleep(0.2)"); {SECOND}'
    arguments = [str(tmp_path), database_url, package(FIRST, slow)]
    replicas = [subprocess.Popen([sys.executable, "-c", textwrap.dedent(MIGRATE), *arguments]) for _ in range(3)]
    assert [replica.wait(120) for replica in replicas] == [0, 0, 0]
    assert fetch(database_url, "SELECT id FROM probe.thing") == [(1,)]


def test_url_with_libpq_options__migrates_too(database_url: str, package: Callable[..., str]) -> None:
    migrate(f"{database_url}?sslmode=disable&application_name=x", package=package(FIRST), schema="probe")


def test_url_of_two_hosts__uses_the_primary(
    database_url: str, free_port: Callable[[], int], package: Callable[..., str]
) -> None:
    both = database_url.replace("@", f"@127.0.0.1:{free_port()},", 1) + "?target_session_attrs=read-write"
    migrate(both, package=package(FIRST), schema="probe")
    assert fetch(database_url, "SELECT count(*) FROM probe.thing") == [(0,)]


def test_folder_with_a_percent_sign__is_migrated(
    database_url: str, package: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "100%").mkdir()
    name = package(FIRST)
    (tmp_path / name).rename(tmp_path / "100%" / name)
    monkeypatch.syspath_prepend(tmp_path / "100%")
    migrate(database_url, package=name, schema="probe")


def test_migrate_without_a_server__is_one_line(free_port: Callable[[], int], package: Callable[..., str]) -> None:
    with pytest.raises(StartError, match="DATABASE_URL: PostgreSQL cannot be used") as raised:
        migrate(f"postgresql://u:hunter2@127.0.0.1:{free_port()}/db", package=package(FIRST), schema="probe")
    assert "hunter2" not in str(raised.value)


def test_migrate_into_an_absent_database__is_one_line(postgres: Postgres, package: Callable[..., str]) -> None:
    with pytest.raises(StartError, match='database "no_such_database" does not exist'):
        migrate(postgres.url("no_such_database"), package=package(FIRST), schema="probe")


def test_running_services__load_no_migration_tools() -> None:
    program = "import sys, common.stores.postgres; sys.exit('alembic' in sys.modules or 'sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


async def test_pool__sets_search_path_and_application_name(database_url: str) -> None:
    async with create_pool(database_url, schema="probe", application="probe-app", timeout_s=60) as pool:
        await pool.execute("CREATE SCHEMA probe; CREATE TABLE thing (id int)")
        assert await pool.fetchval("SELECT schemaname FROM pg_tables WHERE tablename = 'thing'") == "probe"
        assert await pool.fetchval("SHOW application_name") == "probe-app"


async def test_slow_statement__is_cancelled_and_the_pool_works(database_url: str) -> None:
    async with create_pool(database_url, schema="probe", application="probe", size=1, timeout_s=0.3) as pool:
        with pytest.raises(POSTGRES_ERRORS):
            await pool.execute("SELECT pg_sleep(600)")
        assert await first_answer(pool) == 1


async def first_answer(pool: "asyncpg.Pool[asyncpg.Record]") -> object:
    """A busy machine may exceed the short timeout of the pool."""
    async with asyncio.timeout(60):
        while True:
            with suppress(*POSTGRES_ERRORS):
                return await pool.fetchval("SELECT 1")


async def test_pool__starts_without_its_server_and_recovers_each_time(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    url = server.url("postgres")
    server.kill()
    async with create_pool(url, schema="probe", application="probe", timeout_s=60) as pool:
        with pytest.raises(POSTGRES_ERRORS):
            await pool.fetchval("SELECT 1")
        server.start()
        assert await pool.fetchval("SELECT 1") == 1
        server.kill()
        with pytest.raises(POSTGRES_ERRORS):
            await pool.fetchval("SELECT 1")
        server.start()
        assert await pool.fetchval("SELECT 1") == 1


async def starting_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond like a PostgreSQL server that recovers from a crash."""
    while asked := await reader.read(1 << 10):
        if asked == struct.pack("!ii", 8, 80_877_103):  # SSLRequest
            writer.write(b"N")
        else:
            told = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"
            writer.write(b"E" + struct.pack("!i", 4 + len(told)) + told)
            break
    writer.close()


async def test_starting_server__is_skipped(database_url: str) -> None:
    async with await asyncio.start_server(starting_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = database_url.replace("@", f"@127.0.0.1:{port},")
        async with create_pool(url, schema="probe", application="probe", timeout_s=60) as pool:
            assert await pool.fetchval("SELECT 1") == 1


async def test_read_only_server__is_skipped(own_postgres: Callable[..., Postgres]) -> None:
    standby, primary = own_postgres(default_transaction_read_only="on"), own_postgres()
    await asyncio.to_thread(
        standby.execute, f"BEGIN READ WRITE; ALTER USER postgres PASSWORD '{primary.password}'; COMMIT"
    )
    url = primary.url().replace(f":{primary.port}/", f":{standby.port}/")
    async with create_pool(url, schema="probe", application="probe", timeout_s=60) as pool:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await pool.fetchval("SELECT 1")
    url = primary.url().replace("@", f"@127.0.0.1:{standby.port},")
    async with create_pool(url, schema="probe", application="probe", timeout_s=60) as pool:
        assert await pool.fetchval("SELECT inet_server_port()") == primary.port
    async with create_pool(
        f"{url}?target_session_attrs=read-write", schema="probe", application="probe", timeout_s=60
    ) as pool:
        assert await pool.fetchval("SELECT inet_server_port()") == primary.port
    url += "?target_session_attrs=any"  # reading from a standby is explicit
    async with create_pool(url, schema="probe", application="probe", timeout_s=60) as pool:
        assert await pool.fetchval("SELECT inet_server_port()") == standby.port


def test_migrate_on_a_read_only_server__is_one_line(
    own_postgres: Callable[..., Postgres], package: Callable[..., str]
) -> None:
    url = own_postgres(default_transaction_read_only="on").url()
    for each in (url, f"{url}?target_session_attrs=read-write"):
        with pytest.raises(StartError, match="DATABASE_URL: PostgreSQL cannot be used: "):
            migrate(each, package=package(FIRST), schema="probe")


async def test_pool_of_a_demoted_server__reconnects(
    database_url: str, demoted: Callable[[str], AbstractContextManager[str]]
) -> None:
    with demoted(database_url) as url:
        pool = await create_pool(url, schema="probe", application="probe", timeout_s=60)
        await pool.execute("SELECT 1")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError) as refused:
        await pool.execute("CREATE SCHEMA probe")
    await expire_if_read_only(refused.value, pool)
    await pool.execute("CREATE SCHEMA probe")
    await pool.close()

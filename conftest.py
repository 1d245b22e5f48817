"""Real stores for every test: one PostgreSQL and one Valkey per pytest process, and a new database per test.

TEST_DATABASE_URL and TEST_REDIS_URL name servers on 127.0.0.1 to use instead. Their data is deleted.
"""

import gc
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

import pytest
import structlog
from hypothesis import settings

from launcher import postgres as postgresql
from launcher import valkey as valkeys
from launcher.ports import free_ports, share_of
from launcher.postgres import Postgres
from launcher.testing import Databases, started
from launcher.valkey import Valkey

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
PROGRAMS = {"PG_BINDIR", "REDIS_SERVER_BIN"}  # of the stores, for tests too
HERE = ("localhost", "127.0.0.1", "::1", "[::1]")  # the last is what urllib looks for

settings.register_profile("unhurried", deadline=None)  # a busy machine must not fail a property
settings.load_profile("unhurried")


def pytest_configure() -> None:
    """Remove settings meant for other servers: our variables and those of drivers (PGSSLMODE). Loopback bypasses
    proxies, which npm may need."""
    ours = re.findall("^#([A-Z0-9_]+)=", (Path(__file__).parent / ".env.example").read_text("utf-8"), re.MULTILINE)
    for name in {*os.environ} - PROGRAMS:
        if name.startswith(("PG", *ours)):
            del os.environ[name]
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join((os.environ.get(name, ""), *HERE)).lstrip(",")


def _given(variable: str, state: Path) -> int | None:
    """Return the port of a server named in the environment, after writing its password to the launcher's file."""
    url = urlsplit(os.environ.get(variable, ""))
    if url.port is not None:
        (state / "password").write_text(url.password or "")
    return url.port


@pytest.fixture(scope="session")
def own_ports() -> range:
    """Ports below the ephemeral range reserved for this worker, for tests that need several at fixed distances."""
    return share_of(WORKER, WORKERS)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Call it for a port below the ephemeral range that no other call or worker receives."""
    ports = free_ports(WORKER, WORKERS)
    return lambda: next(ports)


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Postgres]:
    state = tmp_path_factory.mktemp("postgres")
    if given := _given("TEST_DATABASE_URL", state):
        yield Postgres(state, given)
        return
    with started(Postgres(state, free_port(), settings=postgresql.SETTINGS_FOR_TESTS)) as server:
        yield server


@pytest.fixture(scope="session")
def databases(postgres: Postgres) -> Databases:
    return Databases(postgres)


@pytest.fixture
def cloned_url(postgres: Postgres, databases: Databases) -> Iterator[Callable[[str], str]]:
    """Call it with a template's name for the URL of a clone, which is dropped after the test."""
    with ExitStack() as dropped:

        def clone(template: str) -> str:
            name = databases.create(template)
            dropped.callback(databases.drop, name)
            return postgres.url(name)

        yield clone


@pytest.fixture
def database_url(cloned_url: Callable[[str], str]) -> str:
    """The URL of an empty database that only this test uses."""
    return cloned_url("template1")


@pytest.fixture
def migrated_url(cloned_url: Callable[[str], str], databases: Databases) -> Callable[..., str]:
    """Call it with package names (`migrated_url("metrics")`) for a database that their migrations created."""
    return lambda *packages: cloned_url(databases.migrated(*packages))


@pytest.fixture
def demoted(postgres: Postgres) -> Callable[[str], AbstractContextManager[str]]:
    """Enter it with the URL of a database, for a URL whose connections stay read-only."""

    @contextmanager
    def read_only(url: str) -> Iterator[str]:
        database = urlsplit(url).path.lstrip("/")
        postgres.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        yield f"{url}?target_session_attrs=any"
        postgres.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only", "postgres")

    return read_only


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Valkey]:
    state = tmp_path_factory.mktemp("valkey")
    if given := _given("TEST_REDIS_URL", state):
        yield Valkey(state, given)
        return
    with started(Valkey(state, free_port(), settings=valkeys.SETTINGS_FOR_TESTS)) as server:
        yield server


@pytest.fixture
def redis_url(valkey: Valkey) -> str:
    """The URL of an empty server."""
    assert valkey.execute("FLUSHALL", timeout_s=60) == "+OK"
    return valkey.url()


@pytest.fixture
def redis_settings(redis_url: str, valkey: Valkey) -> dict[str, str | int]:
    """An empty server as keyword arguments of `redis.asyncio.Redis`."""
    return {"host": valkey.host, "port": valkey.port, "db": 0, "password": valkey.password}


@pytest.fixture
def own_postgres(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., Postgres]]:
    """Call it, with settings, for a server that only this test uses, and may `stop`, `kill` and `start` again."""
    with ExitStack() as stopped:

        def start(**settings: str) -> Postgres:
            port = free_port()
            chosen = {**postgresql.SETTINGS_FOR_TESTS, **settings}
            return stopped.enter_context(started(Postgres(tmp_path / f"postgres-{port}", port, settings=chosen)))

        yield start


@pytest.fixture
def own_valkey(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Callable[..., Valkey]]:
    """Call it, with settings (`appendonly="yes"`), for a separate server, like `own_postgres`."""
    with ExitStack() as stopped:

        def start(**settings: str) -> Valkey:
            port = free_port()
            chosen = valkeys.SETTINGS_FOR_TESTS | {name.replace("_", "-"): value for name, value in settings.items()}
            return stopped.enter_context(started(Valkey(tmp_path / f"valkey-{port}", port, settings=chosen)))

        yield start


@pytest.fixture
def own_logs() -> Iterator[None]:
    """Restore the logging configuration after a test that changes it."""
    loggers = [logging.getLogger(name) for name in (None, "sluice", "aiohttp.server")]
    levels, handlers = [logger.level for logger in loggers], loggers[0].handlers[:]
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def circles() -> Iterator[Callable[[str], list[str]]]:
    """Call it with a package for its functions whose frames were left in reference cycles since the test started.

    Such cycles make a service stall whenever the garbage collector runs.
    """

    def found(package: str) -> list[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        codes = [left.f_code for left in gc.garbage if isinstance(left, FrameType)]
        gc.garbage.clear()
        return [code.co_qualname for code in codes if Path(code.co_filename).parent.name == package]

    gc.collect()
    gc.disable()
    yield found
    gc.enable()

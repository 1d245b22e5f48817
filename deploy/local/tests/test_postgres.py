"""The embedded PostgreSQL after everything that can happen to it."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.postgres import SETTINGS_FOR_TESTS, Postgres
from launcher.server import StoreError

FreePort = Callable[[], int]


@pytest.fixture
def server(tmp_path: Path, free_port: FreePort) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "postgres", free_port(), settings=SETTINGS_FOR_TESTS)
    yield server
    server.kill()


def test_initdb_interrupted__starts_over(server: Postgres) -> None:
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("18\n")
    (server.state / "initdb.running").touch()
    server.start()
    assert server.execute("SELECT 1") == "1"


def test_pid_file_of_a_stranger__does_not_keep_it_from_starting(server: Postgres) -> None:
    server.start()
    server.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    server.kill()
    path = server.data / "postmaster.pid"
    _, *rest = path.read_text().splitlines()
    path.write_text("\n".join([str(os.getppid()), *rest, ""]))
    server.start()
    assert server.execute("SELECT answer FROM kept") == "42"


@pytest.mark.parametrize("name", ["data/postmaster.pid", "initdb.running"])
def test_link_where_root_writes__leads_it_nowhere(server: Postgres, tmp_path: Path, name: str) -> None:
    link, elsewhere = server.state / name, tmp_path / "elsewhere"
    link.parent.mkdir(parents=True)
    if name == "data/postmaster.pid":
        elsewhere.write_text("99999999\n")
    link.symlink_to(elsewhere)
    before = elsewhere.exists() and elsewhere.read_text()
    with pytest.raises(OSError):
        server.start()
    assert (elsewhere.exists() and elsewhere.read_text()) == before


def test_second_server_on_the_same_folder__ends_the_first_in_order(server: Postgres) -> None:
    server.start()
    server.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    second = Postgres(server.state, server.port, settings=SETTINGS_FOR_TESTS)
    try:
        second.start()
        assert second.execute("SELECT answer FROM kept") == "42"
        assert not server.is_running
    finally:
        second.kill()


def test_data_of_another_version__is_named_and_kept(server: Postgres) -> None:
    server.data.mkdir(parents=True)
    (server.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(StoreError, match="created by PostgreSQL 12"):
        server.start()
    assert (server.data / "PG_VERSION").read_text() == "12\n"


def test_setting_that_it_refuses__is_in_the_error(tmp_path: Path, free_port: FreePort) -> None:
    with pytest.raises(StoreError, match="shared_buffers"):
        Postgres(tmp_path / "postgres", free_port(), settings={"fsync": "off", "shared_buffers": "-1"}).start()


def test_cluster__compares_text_by_code_point_and_asks_for_the_password(server: Postgres) -> None:
    server.start()
    assert server.execute("SELECT 'a' > 'B' AND lower('Ä') = 'ä'") == "t"
    (server.state / "password").write_text("wrong")
    with pytest.raises(StoreError, match="password authentication failed"):
        server.execute("SELECT 1")


def test_password__is_readable_by_its_owner_only(server: Postgres) -> None:
    server.start()
    assert (server.state / "password").stat().st_mode & 0o777 == 0o600
    assert server.state.stat().st_mode & 0o777 == 0o700


def test_stop__disconnects_clients_and_is_orderly(server: Postgres) -> None:
    server.start()
    server.stop()
    assert "database system is shut down" in server.log.read_text()
    assert server.process is not None
    assert server.process.returncode == 0
    assert signal.SIGINT == server.stop_signal

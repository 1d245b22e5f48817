"""The launcher in its own process with stub services: the promises of `make run`."""

import json
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from launcher import valkey
from launcher.keeper import recorded_pid
from launcher.ports import is_free
from launcher.testing import note_ports

LAUNCHER = Path(__file__).with_name("stub_launcher.py")
TIMEOUT_S = 60
_PORTS = 8  # two for each of three stubs, and one for each store


class Launched:
    """A running launcher, its output and its processes."""

    def __init__(
        self, folder: Path, base: int, names: tuple[str, ...], environment: Mapping[str, str], ahead: Sequence[str] = ()
    ) -> None:
        self.folder, self.state, self.base, self.names = folder, folder / "state", base, names
        self.said: list[dict[str, Any]] = []
        self._errors = folder / "errors"
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*ahead, sys.executable, str(LAUNCHER), str(self.state), str(folder), str(base), *names],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read_all)
        self._reader.start()

    def until(self, event: str) -> dict[str, Any]:
        """Wait until the launcher reports `event`."""
        while True:
            line = self._lines.get(timeout=TIMEOUT_S)
            assert line, f"ended without {event!r}: {self.said} {self._errors.read_text()}"
            self.said.append(json.loads(line) if line.startswith("{") else {"event": "plain", "text": line.strip()})
            if self.said[-1]["event"] == event:
                return self.said[-1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)

    def error(self) -> str:
        """Wait for its exit and return its error output."""
        self.process.wait(TIMEOUT_S)
        return self._errors.read_text()

    def close(self) -> None:
        if self.process.poll() is None:
            self.end()
        self._reader.join(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read_all(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def pid_of(self, name: str) -> int:
        pid = recorded_pid(self.state, name)
        assert pid is not None
        return pid

    @property
    def store_pids(self) -> list[int]:
        postgres = (self.state / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0]
        return [int(postgres), int((self.state / "valkey" / "pid").read_text())]

    def notes(self, file: str) -> list[str]:
        return (self.folder / file).read_text().split()

    def environment_of(self, name: str) -> dict[str, str]:
        found: dict[str, str] = json.loads((self.folder / f"{name}.environment").read_text())
        return found


Launch = Callable[..., Launched]


@pytest.fixture
def launch(tmp_path: Path, free_port: Callable[[], int], own_ports: range) -> Iterator[Launch]:
    """Call it with names of stub services to start a launcher on the same state as the calls before."""
    places = range(_PORTS)
    base = next(one for one in iter(free_port, 0) if all(one + n in own_ports and is_free(one + n) for n in places))
    note_ports(tmp_path / "state", base + 6, base + 7)
    with ExitStack() as ended:

        def start(*names: str, base: int = base, ahead: Sequence[str] = (), **environment: str) -> Launched:
            launched = Launched(tmp_path, base, names, environment, ahead)
            ended.callback(launched.close)
            return launched

        yield start


def test_run__starts_everything_and_stops_the_front_first(launch: Launch) -> None:
    launched = launch("edge", "scoring", "reports")
    assert launched.until("ready")["url"] == f"http://127.0.0.1:{launched.base}"
    assert sorted(launched.notes("migrated")) == ["edge", "reports", "scoring"]
    pids = [*launched.store_pids, *map(launched.pid_of, launched.names)]
    assert launched.end() == 0
    assert launched.notes("stopped")[0] == "edge"
    assert sorted(launched.notes("stopped")) == ["edge", "reports", "scoring"]
    for pid in pids:
        wait_for_end(pid)


def test_environment__has_the_embedded_stores_and_the_users_settings(launch: Launch) -> None:
    other = {"REDIS_PORT": "1", "REDIS_USERNAME": "x", "REDIS_PASSWORD_FILE": "/x", "REDIS_TLS": "1"}
    mine = {"EDGE_TIMEOUT_S": "3", "EVENTS_HASH_KEY": "mine", "REPORTS_URL": "http://reports.example:1"}
    launched = launch("edge", "scoring", "reports", LOG_FORMAT="console", REDIS_CLUSTER="true", **other, **mine)
    launched.until("ready")
    found = launched.environment_of("edge")
    assert found["DATABASE_URL"].startswith("postgresql://postgres:")
    assert found["REDIS_HOST"] == "127.0.0.1"
    assert 10_000 <= int(found["REDIS_PORT"]) < 32_768
    assert (found["REDIS_USERNAME"], found["REDIS_PASSWORD_FILE"]) == ("", "")
    assert (found["REDIS_TLS"], found["REDIS_CLUSTER"]) == ("false", "false")
    assert found["EVENTS_JOURNAL_DIR"] == str(launched.state / "journal" / "inference")
    assert found["EDGE_TIMEOUT_S"] == "3"
    assert found["EVENTS_HASH_KEY"] == "mine"
    assert found["SCORING_URL"] == f"http://127.0.0.1:{launched.base + 2}"
    assert found["REPORTS_URL"] == "http://reports.example:1"
    assert found["LOG_FORMAT"] == "json"  # for the files, whatever the user sees


def test_admin_token__is_in_its_file_and_not_in_the_output(launch: Launch) -> None:
    """The output may be a log that other users can read."""
    first = launch("edge")
    path = first.until("ready")["admin_token_in"]
    token = first.environment_of("edge")["EDGE_ADMIN_TOKEN"]
    assert first.until("plain")["text"].startswith("curl ")
    assert Path(path).read_text() == token
    assert not [said for said in first.said if token in json.dumps(said)]
    first.end()
    second = launch("edge")
    second.until("ready")
    assert second.environment_of("edge")["EDGE_ADMIN_TOKEN"] == token


def test_killed_launcher__leaves_no_process_and_starts_again_at_once_with_its_data(launch: Launch) -> None:
    killed = launch("edge", "scoring")
    killed.until("ready")
    before = killed.environment_of("edge")
    pids = [*killed.store_pids, *map(killed.pid_of, killed.names)]
    killed.end(signal.SIGKILL)
    again = launch("edge", "scoring")
    again.until("ready")
    for pid in pids:
        wait_for_end(pid)
    after = again.environment_of("edge")
    assert (before["DATABASE_URL"], before["REDIS_PORT"]) == (after["DATABASE_URL"], after["REDIS_PORT"])


def test_killed_stores__are_restarted(launch: Launch) -> None:
    launched = launch("edge")
    launched.until("ready")
    for pid in launched.store_pids:
        os.kill(pid, signal.SIGKILL)
    ready = {launched.until("store ready")["name"] for _ in range(2)}  # one may be ready before the other has exited
    ended = {said["name"] for said in launched.said if said["event"] == "store exited"}
    assert ended == ready == {"PostgreSQL", "Valkey"}
    assert launched.end() == 0


def test_store__that_cannot_be_started__is_retried_with_back_off(launch: Launch, tmp_path: Path) -> None:
    program = tmp_path / "valkey-server"
    program.symlink_to(valkey.binary())
    launched = launch("edge", REDIS_SERVER_BIN=str(program))
    launched.until("ready")
    program.unlink()
    os.kill(launched.store_pids[1], signal.SIGKILL)
    ended = [launched.until("store exited")["restart_in_s"] for _ in range(5)]
    assert ended == [0.05, 0.1, 0.2, 0.4, 0.4]
    assert "No such file" in launched.until("store cannot be started")["reason"]
    program.symlink_to(valkey.binary())
    assert launched.until("store ready")["name"] == "Valkey"
    assert launched.end() == 0


def test_second_start__is_refused_and_names_the_first(launch: Launch) -> None:
    first = launch("edge")
    first.until("ready")
    second = launch("edge")
    assert f"Sluice already runs at http://127.0.0.1:{first.base} (pid {first.process.pid})" in second.error()
    assert second.process.returncode == 1


def test_port_in_use__is_named_with_the_cure(launch: Launch, free_port: Callable[[], int]) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        error = launch("edge", base=port).error()
    assert f"Port {port}, needed by edge, is in use" in error
    assert "SLUICE_PORT_BASE=" in error


def test_killed_service__is_restarted_without_back_off(launch: Launch) -> None:
    """However often: each second of delay is a second of failed predictions."""
    launched = launch("edge", "scoring")
    launched.until("ready")
    for _ in range(3):
        os.kill(launched.pid_of("scoring"), signal.SIGKILL)
        exited = launched.until("service exited")
        assert (exited["name"], exited["exit"], exited["restart_in_s"]) == ("scoring", -9, 0.05)
        assert launched.until("service ready")["name"] == "scoring"


def test_crashing_service__is_restarted_with_back_off(launch: Launch, tmp_path: Path) -> None:
    launched = launch("edge", "scoring")
    launched.until("ready")
    (tmp_path / "scoring.broken").touch()
    os.kill(launched.pid_of("scoring"), signal.SIGKILL)
    assert [launched.until("service exited")["restart_in_s"] for _ in range(5)] == [0.05, 0.1, 0.2, 0.4, 0.4]
    (tmp_path / "scoring.broken").unlink()
    assert launched.until("service ready")["name"] == "scoring"


def test_failed_migration__stops_the_start_with_its_cause(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "scoring.unmigratable").touch()
    launched = launch("edge", "scoring")
    assert "Migrations of scoring failed: cannot migrate as ordered\nThe full log is /" in launched.error()
    assert launched.process.returncode == 1


def test_service__that_never_starts__stops_the_start_with_its_cause(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "scoring.broken").touch()
    launched = launch("edge", "scoring")
    log = launched.state / "logs" / "scoring.log"
    assert f"scoring does not start (exit 3): broken as ordered\nThe full log is {log}" in launched.error()
    assert launched.process.returncode == 1
    assert {json.loads(line)["event"] for line in log.read_text().splitlines()} == {"broken as ordered"}


def test_service__that_refuses_its_settings__is_not_restarted(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "scoring.broken").write_text("2")
    launched = launch("edge", "scoring")
    assert "scoring does not start (exit 2)" in launched.error()
    assert (launched.state / "logs" / "scoring.log").read_text().count("broken as ordered") == 1


def test_service__that_is_slow_to_become_ready__is_named_with_its_log(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "scoring.unready").touch()
    launched = launch("scoring", STUB_READY_S="0.1")
    said = launched.until("service not ready yet")
    assert (said["name"], said["see"]) == ("scoring", str(launched.state / "logs" / "scoring.log"))
    (tmp_path / "scoring.unready").unlink()
    assert launched.until("ready")


def test_stores__provided_by_the_user__are_not_embedded(launch: Launch) -> None:
    launched = launch("edge", DATABASE_URL="postgresql://db.example/x", REDIS_HOST="redis.example")
    launched.until("ready")
    assert launched.environment_of("edge")["REDIS_HOST"] == "redis.example"
    assert not (launched.state / "postgres").exists()
    assert not (launched.state / "valkey").exists()


@pytest.fixture
def terminal() -> Iterator[None]:
    """Child processes receive SIGHUP even if these tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_terminal_signal__stops_in_order(launch: Launch, number: signal.Signals) -> None:
    launched = launch("edge")
    launched.until("ready")
    assert launched.end(number) == 0
    assert launched.notes("stopped") == ["edge"]


def test_nohup__ignores_the_end_of_the_terminal(launch: Launch) -> None:
    launched = launch("edge", ahead=["nohup"])
    launched.until("ready")
    launched.process.send_signal(signal.SIGHUP)
    assert launched.end() == 0  # SIGTERM was the first signal, not the second


def test_second_signal__kills_a_service_that_does_not_stop(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "edge.stubborn").touch()
    launched = launch("edge")
    launched.until("ready")
    pids = [*launched.store_pids, launched.pid_of("edge")]
    launched.process.send_signal(signal.SIGINT)
    launched.until("stays")
    assert launched.end(signal.SIGINT) == 130
    for pid in pids:
        wait_for_end(pid)


def test_dev__restarts_a_service_when_its_source_changes(launch: Launch, tmp_path: Path) -> None:
    source = tmp_path / "sources" / "scoring" / "model.py"
    source.parent.mkdir(parents=True)
    source.touch()
    launched = launch("edge", "scoring", STUB_RELOADS="1")
    launched.until("ready")
    source.write_text("changed")
    changed = launched.until("source changed")
    assert (changed["name"], changed["file"]) == ("scoring", "model.py")
    assert launched.until("service ready")["name"] == "scoring"


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not our child has exited."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], TIMEOUT_S)[0], f"{pid} still runs"
    finally:
        os.close(descriptor)

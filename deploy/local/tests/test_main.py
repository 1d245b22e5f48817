"""The commands of the launcher beside `run`, each in a process of its own, on a state folder of its own."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.keeper import log_path, pid_file
from launcher.state import Running, held
from launcher.testing import note_ports

TIMEOUT_S = 60
NOT_RUNNING = "not running; `make run` starts it\n"


def start(state: Path, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "launcher", "--state", str(state), *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said(state: Path, *words: str) -> tuple[int, str]:
    """The exit status and the output of a command."""
    with start(state, *words) as process:
        output, _ = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, output


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "logs").mkdir()
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def infra(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[subprocess.Popen[str]]:
    note_ports(tmp_path, free_port(), free_port())
    with start(tmp_path, "infra") as process:
        try:
            yield process
        finally:
            process.terminate()


def test_infra__prints_what_leads_to_its_stores_until_it_is_stopped(
    tmp_path: Path, infra: subprocess.Popen[str]
) -> None:
    assert infra.stdout is not None
    exported: dict[str, str] = {}
    for line in infra.stdout:
        name, _, value = line.strip().removeprefix("export ").partition("=")
        exported[name] = value
        if name == "REDIS_CLUSTER":  # the last of them
            break
    assert exported["DATABASE_URL"].startswith("postgresql://postgres:")
    with socket.create_connection((exported["REDIS_HOST"], int(exported["REDIS_PORT"])), TIMEOUT_S) as redis:
        redis.sendall(f"AUTH {exported['REDIS_PASSWORD']}\r\nPING\r\n".encode())
        with redis.makefile() as answers:
            assert [answers.readline().strip() for _ in range(2)] == ["+OK", "+PONG"]
    status, output = said(tmp_path, "status")
    assert status == 0
    assert f"running at no URL, the stores alone, pid {infra.pid}" in output
    assert said(tmp_path, "stop") == (0, "stopped\n")
    assert infra.wait(TIMEOUT_S) == 0


def test_stop_and_status_of_what_does_not_run__say_so(state: Path) -> None:
    assert said(state, "stop") == (0, "not running\n")
    status, output = said(state, "status")
    assert status == 1
    assert output.startswith(NOT_RUNNING)
    assert said(state, "restart", "metrics") == (1, NOT_RUNNING)


def test_logs_of_what_never_ran__are_not_waited_for(state: Path) -> None:
    assert said(state, "logs", "--follow") == (1, "nothing has been logged yet; `make run` starts what logs\n")


def test_state_folder_that_cannot_be_made__is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, output = said(tmp_path / "file" / "state", "run")
    assert status == 1
    assert output == f"launcher: Not a directory: {tmp_path / 'file' / 'state'}\n"


def test_stop_of_a_launcher_that_has_not_said_who_it_is__signals_nobody(state: Path) -> None:
    with held(state, Running(pid=0, url="")):
        status, output = said(state, "stop")
    assert status == 1
    assert "being started or stopped by another launcher" in output


def test_restart_of_a_pid_that_is_a_strangers_by_now__signals_nobody(state: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pid_file(state, "metrics").write_text(str(stranger.pid))
    with held(state, Running(os.getpid(), "http://127.0.0.1:8000")):
        assert said(state, "restart", "metrics") == (1, NOT_RUNNING)
    stranger.communicate(b"go on\n", timeout=TIMEOUT_S)
    assert stranger.returncode == 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started here can be interrupted, though a shell may have started these tests in its background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_logs__prints_the_last_lines_and_follows_until_interrupted(state: Path) -> None:
    log = log_path(state, "metrics")
    log.write_text('{"event": "old"}\n{"event": "last"}\n')
    with start(state, "logs", "metrics", "--follow", "--last", "1") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == '{"event": "last"}\n'
        with log.open("a") as more:
            more.write('{"event": "next"}\n')
        assert following.stdout.readline() == '{"event": "next"}\n'
        following.send_signal(signal.SIGINT)
        try:
            assert following.wait(TIMEOUT_S) == 130
        finally:
            following.kill()


@pytest.mark.parametrize(("state", "status"), [("own", 0), ("another", 1)])
def test_dotenv__is_for_the_state_folder_of_the_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, status: int
) -> None:
    """Tests and load tests start systems of their own, which know nothing of its DATABASE_URL."""
    (tmp_path / ".env").write_text("no setting\n")
    monkeypatch.setattr("launcher.__main__.ROOT", tmp_path)
    monkeypatch.setattr("launcher.__main__.STATE", tmp_path / "another")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["launcher", "--state", str(tmp_path / state), "stop"])
    assert main() == status

"""Commands of the launcher other than `run`, each in its own process and on its own state folder."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.__main__ import main
from launcher.keeper import log_path
from launcher.state import Running, held, kept_secret
from launcher.testing import note_ports

TIMEOUT_S = 60
NOT_RUNNING = "not running; `make run` starts it\n"


def start(state: Path, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "launcher", "--state", str(state), *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def said(state: Path, *words: str) -> tuple[int, str]:
    """Run a command; return its exit status and its output."""
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


def test_infra__prints_the_variables_of_its_stores_until_it_is_stopped(
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
    assert output == f"only the stores run, pid {infra.pid}\n"
    assert said(tmp_path, "stop") == (0, "stopped\n")
    assert infra.wait(TIMEOUT_S) == 0


def test_command__without_a_running_system__names_the_cure(state: Path) -> None:
    assert said(state, "stop") == (0, "not running\n")
    status, output = said(state, "status")
    assert status == 1
    assert output == NOT_RUNNING
    assert said(state, "token") == (1, NOT_RUNNING)
    assert said(state, "logs", "--follow") == (1, "there are no logs yet; `make run` starts the system\n")


def test_state_folder__that_cannot_be_created__is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, output = said(tmp_path / "file" / "state", "run")
    assert status == 1
    assert output == f"launcher: Not a directory: {tmp_path / 'file' / 'state'}\n"


def test_stop__while_another_launcher_is_starting__sends_no_signal(state: Path) -> None:
    with held(state, Running(pid=0, url="")):
        status, output = said(state, "stop")
    assert status == 1
    assert "another launcher is starting or stopping" in output


async def test_status__uses_the_ports_of_the_running_system(state: Path, free_port: Callable[[], int]) -> None:
    """Also if SLUICE_PORT_BASE was set only in the shell that started it."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()

    ops = {"metrics": ("127.0.0.1", free_port()), "analyst": ("127.0.0.1", free_port())}
    async with await asyncio.start_server(answer, *ops["metrics"]):
        with held(state, Running(os.getpid(), "http://127.0.0.1:1234", ops)):
            status, output = await asyncio.to_thread(said, state, "status")
    assert status == 0
    assert output.splitlines() == [
        f"running at http://127.0.0.1:1234, pid {os.getpid()}",
        f"  metrics       ops port {ops['metrics'][1]}  ready",
        f"  analyst       ops port {ops['analyst'][1]}  no answer",
    ]


def test_logs__of_several_services__are_in_the_order_of_their_time(state: Path) -> None:
    times = {"metrics": ("05:00:01", "05:00:03"), "analyst": ("05:00:02",)}
    for name, of_one in times.items():
        lines = [f'{{"timestamp": "2026-12-03T{time}Z", "event": "{time}"}}\n' for time in of_one]
        log_path(state, name).write_text("".join(lines))
    status, output = said(state, "logs")
    assert status == 0
    assert [json.loads(line)["event"] for line in output.splitlines()] == ["05:00:01", "05:00:02", "05:00:03"]


def test_token__is_printed_from_its_file(state: Path) -> None:
    token = kept_secret(state / "edge-admin-token")
    assert said(state, "token") == (0, f"{token}\n")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Child processes receive SIGINT even if these tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_logs__prints_the_last_lines_and_follows_until_interrupted(state: Path) -> None:
    log = log_path(state, "metrics")
    log.write_text('{"event": "old"}\n{"event": "last"}\n{"event": "incompl')
    with start(state, "logs", "metrics", "--follow", "--last", "1") as following:
        assert following.stdout is not None
        assert following.stdout.readline() == '{"event": "last"}\n'
        with log.open("a") as more:
            more.write('ete"}\n')
        assert following.stdout.readline() == '{"event": "incomplete"}\n'
        following.send_signal(signal.SIGINT)
        try:
            assert following.wait(TIMEOUT_S) == 130
        finally:
            following.kill()


@pytest.mark.parametrize(("state", "output"), [("other", NOT_RUNNING), ("own", "")])
def test_dotenv__is_read_only_for_the_state_folder_of_the_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], state: str, output: str
) -> None:
    """Tests and load tests start other systems, which must not use its DATABASE_URL."""
    (tmp_path / ".env").write_text("no setting\n")
    monkeypatch.setattr("launcher.__main__.ROOT", tmp_path)
    monkeypatch.setattr("launcher.__main__.STATE", tmp_path / "own")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("sys.argv", ["sluice", "--state", str(tmp_path / state), "token"])
    assert main() == 1
    assert capsys.readouterr().out == output

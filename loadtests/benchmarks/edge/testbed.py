"""The stores and processes shared by the servers of one run, and their CPU time."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from launcher.ports import free_ports
from launcher.postgres import SETTINGS, Postgres
from launcher.testing import started

HERE: Final = Path(__file__).parent
START_TIMEOUT_S: Final = 20.0
_INHERITED: Final = ("PATH", "HOME", "TMPDIR", "LANG")

Process = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Testbed:
    """A folder, free ports, PostgreSQL and an upstream that answers every POST at once."""

    stack: ExitStack
    folder: Path
    ports: Iterator[int]
    postgres: Postgres
    upstream: Process
    upstream_port: int

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self.upstream_port}"

    def start(self, command: Sequence[object], port: int, **environment: str) -> Process:
        """Start a server that is terminated at the end of the run, and wait until it listens."""
        return self.stack.enter_context(running(command, port, environment))

    def config(self, template: str, **values: object) -> Path:
        """Fill in the `@NAME@` fields of a file below `configs`; return the new file's path."""
        text = (HERE / "configs" / template).read_text(encoding="utf-8")
        for name, value in {"FOLDER": self.folder, "UPSTREAM": self.upstream_port, **values}.items():
            text = text.replace(f"@{name}@", str(value))
        path = self.folder / template
        path.write_text(text, encoding="utf-8")
        return path


@contextmanager
def testbed() -> Iterator[Testbed]:
    ports = free_ports(0, 1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = {**SETTINGS, "shared_preload_libraries": "pg_stat_statements"}
        postgres = stack.enter_context(started(Postgres(folder / "postgres", next(ports), settings=settings)))
        postgres.execute("CREATE EXTENSION pg_stat_statements")
        port = next(ports)
        command = [sys.executable, HERE / "upstream.py", str(port)]
        upstream = stack.enter_context(running(command, port, {}))
        yield Testbed(stack, folder, ports, postgres, upstream, port)


@contextmanager
def running(command: Sequence[object], port: int, environment: dict[str, str]) -> Iterator[Process]:
    """A server process, with only `environment` and a few inherited variables set."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    arguments = [str(part) for part in command]
    process = subprocess.Popen(arguments, env=inherited | environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_listening(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(arguments)} did not start")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(START_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_s(*processes: Process | None) -> float:
    """CPU seconds used so far by these processes and all their children, including those that have exited."""
    return sum(_family_cpu_s(psutil.Process(process.pid)) for process in processes if process is not None)


def _family_cpu_s(parent: psutil.Process) -> float:
    total = sum(parent.cpu_times()[:4])  # user, system, and both of the children that have exited
    for child in parent.children(recursive=True):
        try:
            total += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return total


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

"""The whole system on separate ports and a separate state folder, started by the launcher, as a user starts it."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil

from launcher.testing import note_ports, until_ready

START_S = 90.0
TEST_ENVIRONMENT = {
    "EDGE_TRUSTED_PROXIES": "127.0.0.1/32",  # tests send requests of many addresses by X-Forwarded-For
    "EDGE_LIMIT_TIMEOUT_MS": "5000",  # a slow PostgreSQL on a busy machine must not count as down
    "ANALYST_REDIS_TIMEOUT_S": "10",  # nor must a slow Redis
    "ANALYST_METRICS_TIMEOUT_S": "14",  # nor must slow metrics
    "INFERENCE_MAX_WAIT_S": "30",  # a stall must not make inference refuse what it can score
    "EDGE_METRICS_RATE_LIMIT": "1000",  # tests wait for counts in a tight loop
    "EDGE_METRICS_RATE_WINDOW_S": "1",
    "LOG_FORMAT": "json",
}


def _command(process: psutil.Process) -> list[str]:
    """Return the command line, empty if the process has ended."""
    try:
        command: list[str] = process.cmdline()
    except psutil.NoSuchProcess:
        return []
    return command


def until_exact(ops_url: str) -> None:
    """Wait until the edge's store is up. On a busy machine an edge may start without it and decide locally."""
    deadline = time.monotonic() + START_S
    while not _has_its_store(ops_url):
        assert time.monotonic() < deadline, "the edge has no store"
        time.sleep(0.05)


def _has_its_store(ops_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{ops_url}/metrics", timeout=START_S) as response:
            return b"\nsluice_edge_store_up 1.0\n" in response.read()
    except OSError:  # not listening yet
        return False


@dataclass
class System:
    """A launcher and its child processes."""

    state: Path
    port_base: int
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port_base}"

    def ops_url(self, place: int) -> str:
        return f"http://127.0.0.1:{self.port_base + 1000 + place}"

    def start(self) -> None:
        """Start, and wait until the launcher reports that everything is ready. The stores use port_base + 4 and + 5."""
        note_ports(self.state, self.port_base + 4, self.port_base + 5)
        self.output = self.state.with_suffix(".log")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                self._argv("run"),
                env=self._environ(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while b"curl " not in self.output.read_bytes():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(self.output.read_text()[-5000:])
            time.sleep(0.05)
        until_exact(self.ops_url(0))

    def logs(self) -> str:
        """Return everything that the services and the stores have logged."""
        return "".join(path.read_text() for path in sorted((self.state / "logs").glob("*.log*")))

    def _argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "launcher", "--state", str(self.state), *words]

    def _environ(self) -> dict[str, str]:
        return os.environ | TEST_ENVIRONMENT | {"SLUICE_PORT_BASE": str(self.port_base)} | self.environment

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)

    def processes(self) -> list[psutil.Process]:
        """Return the stores and services, which are descendants of the launcher."""
        assert self.process is not None
        children: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return children

    def service(self, package: str) -> psutil.Process:
        """Return the process of one service."""
        found = [p for p in self.processes() if _command(p)[-2:] == ["-m", package]]
        assert len(found) == 1, found
        return found[0]

    @contextmanager
    def unattended(self) -> Iterator[None]:
        """Suspend the launcher, so that it restarts nothing until the block ends."""
        assert self.process is not None
        launcher = psutil.Process(self.process.pid)
        launcher.suspend()
        try:
            yield
        finally:
            launcher.resume()

    async def database(self) -> asyncpg.Connection:
        """Connect to the system's PostgreSQL."""
        return await asyncpg.connect(self.service("metrics").environ()["DATABASE_URL"])

    async def healthy(self) -> dict[str, Any]:
        """Return the edge's health report once every part has answered in time."""
        async with aiohttp.ClientSession(self.url) as session, asyncio.timeout(START_S):
            while True:
                async with session.get("/health") as response:
                    health: dict[str, Any] = await response.json()
                if health["status"] == "ok" and health["model"] is not None:
                    return health
                await asyncio.sleep(0.2)

    async def specification(self) -> dict[str, Any]:
        """Return the edge's OpenAPI document once it includes every service."""
        async with aiohttp.ClientSession(self.url) as session, asyncio.timeout(START_S):
            while True:
                async with session.get("/openapi.json") as response:
                    document: dict[str, Any] = await response.json()
                if {"inference", "metrics", "analyst"} <= {tag["name"] for tag in document.get("tags", ())}:
                    return document
                await asyncio.sleep(0.2)

    async def ready(self, place: int) -> None:
        """Wait until the service at `place` is ready."""
        await until_ready(self.port_base + 1000 + place)

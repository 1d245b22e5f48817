"""The whole system as a user starts it, in a separate state folder: one launcher for the stores, one for the services.

A proxy in front of each store lets a test break its connections.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

import asyncpg
import psutil
from redis.asyncio import Redis

from chaos.system.proxy import Proxy
from launcher.keeper import log_path, recorded_pid
from launcher.processes import end

Service = Literal["edge-limiter", "inference", "metrics", "analyst"]
Store = Literal["postgres", "valkey"]
SERVICES: Final[tuple[Service, ...]] = ("edge-limiter", "inference", "metrics", "analyst")
STORES: Final[tuple[Store, ...]] = ("postgres", "valkey")
START_S: Final = 120.0
STOP_S: Final = 60.0
_NONE_GIVEN: Final = {"DATABASE_URL": "", "DATABASE_URL_FILE": "", "REDIS_HOST": ""}
"""Variables that would select the stores of another system."""
_EXPORT: Final = re.compile(r"^export (\w+)=(.*)$", re.MULTILINE)


class StartError(Exception):
    """The system did not start. The message contains the end of the launcher's output."""


@dataclass
class Stack:
    """A running system. Uses the ports `port_base` to +3 and +1000 to +1003; stores use free ports."""

    folder: Path
    port_base: int
    environment: Mapping[str, str]
    proxies: dict[Store, Proxy] = field(default_factory=dict)
    _launchers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _stores: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port_base}"

    def ops_url(self, service: Service) -> str:
        return f"http://127.0.0.1:{self.port_base + 1000 + SERVICES.index(service)}"

    def log(self, service: Service) -> Path:
        return log_path(self.folder / "services", service)

    async def start(self) -> None:
        """Start the system and wait until it is ready."""
        said = await self._launch("stores", "infra", _NONE_GIVEN, "export REDIS_PASSWORD")
        self._stores = dict(_EXPORT.findall(said))
        await self._launch("services", "run", await self._through_proxies(), "curl ")

    async def stop(self) -> None:
        """Stop in order, after resuming paused processes."""
        for name in SERVICES + STORES:
            self.resume(name)
        for proxy in self.proxies.values():
            proxy.set("pass")
        for launcher in reversed(self._launchers.values()):
            await asyncio.to_thread(end, launcher, signal.SIGTERM, STOP_S)
        for proxy in self.proxies.values():
            await proxy.close()

    def process(self, name: Service | Store) -> psutil.Process | None:
        """Return the current process of a service, or None."""
        pid = self._pid(name)
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid) if pid is not None else None
            if process is not None and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None

    def family(self, name: Service | Store) -> list[psutil.Process]:
        """Return the process and its children, as PostgreSQL has many."""
        with suppress(psutil.NoSuchProcess):
            process = self.process(name)
            return [process, *process.children(recursive=True)] if process is not None else []
        return []

    @property
    def names(self) -> list[str]:
        """Return the names of all stores and services."""
        return [*SERVICES, *STORES, *(f"launcher ({name})" for name in self._launchers)]

    def launchers(self) -> dict[str, psutil.Process]:
        return {
            f"launcher ({name})": psutil.Process(process.pid)
            for name, process in self._launchers.items()
            if process.poll() is None
        }

    def pause(self, name: Service | Store) -> None:
        """Send SIGSTOP to the process and its children."""
        for process in self.family(name):
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self, name: Service | Store) -> None:
        for process in self.family(name):
            with suppress(psutil.NoSuchProcess):
                process.resume()

    async def database(self) -> asyncpg.Connection:
        """Connect to PostgreSQL, bypassing the proxy."""
        return await asyncpg.connect(
            self._stores["DATABASE_URL"], timeout=5, command_timeout=30, server_settings={"search_path": "metrics"}
        )

    def redis(self) -> Redis:
        """Return a Redis client that bypasses the proxy."""
        return Redis(
            host=self._stores["REDIS_HOST"],
            port=int(self._stores["REDIS_PORT"]),
            password=self._stores["REDIS_PASSWORD"],
            decode_responses=True,
            socket_timeout=5,
        )

    def _pid(self, name: Service | Store) -> int | None:
        stores = self.folder / "stores"
        with suppress(OSError, ValueError, IndexError):
            if name == "postgres":
                return int((stores / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
            if name == "valkey":
                return int((stores / "valkey" / "pid").read_text())
            return recorded_pid(self.folder / "services", name)
        return None

    async def _through_proxies(self) -> dict[str, str]:
        database = urlsplit(self._stores["DATABASE_URL"])
        assert database.port is not None
        self.proxies = {"postgres": Proxy(database.port), "valkey": Proxy(int(self._stores["REDIS_PORT"]))}
        ports = {name: await proxy.start() for name, proxy in self.proxies.items()}
        behind = self._stores["DATABASE_URL"].replace(f":{database.port}/", f":{ports['postgres']}/")
        return {**self._stores, "DATABASE_URL": behind, "REDIS_PORT": str(ports["valkey"])}

    async def _launch(self, name: str, command: str, more: Mapping[str, str], said_when_ready: str) -> str:
        output = self.folder / f"{name}.log"
        with output.open("wb") as file:
            process = subprocess.Popen(  # noqa: ASYNC220  # the kernel ends it with the thread that started it
                [sys.executable, "-m", "launcher", "--state", str(self.folder / name), command],
                env={
                    **os.environ,
                    "SLUICE_PORT_BASE": str(self.port_base),
                    "LOG_FORMAT": "json",
                    **self.environment,
                    **more,
                },
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._launchers[name] = process
        deadline = time.monotonic() + START_S
        while said_when_ready not in (said := output.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                raise StartError(f"the launcher does not get ready:\n{said[-3000:]}")
            await asyncio.sleep(0.1)
        return said

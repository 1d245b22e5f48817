"""For tests: temporary stores, databases cloned from a migrated template, and fixed store ports."""

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from launcher.postgres import Postgres
from launcher.server import Server, StoreError
from launcher.services import status_of

AnyServer = TypeVar("AnyServer", bound=Server)
_MIGRATION_TIMEOUT_S = 120
_READY_S = 90


@contextmanager
def started(server: AnyServer) -> Iterator[AnyServer]:
    """Start the server; at the end kill it and delete its state."""
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.state, ignore_errors=True)


async def until_ready(ops_port: int) -> None:
    """Wait until the service with this ops port is ready."""
    async with asyncio.timeout(_READY_S):
        while True:
            if await status_of("127.0.0.1", ops_port) == 200:
                return
            await asyncio.sleep(0.02)


def note_ports(state: Path, postgres: int, valkey: int) -> None:
    """Fix the ports of a launcher's stores, so that it does not choose one that another test is about to use."""
    state.mkdir(parents=True, exist_ok=True)
    for name, port in {"postgres": postgres, "valkey": valkey}.items():
        (state / f"{name}.port").write_text(str(port))


class Databases:
    """The databases of one test server. A template is migrated when it is first needed."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._templates: dict[tuple[str, ...], str] = {}
        self._numbers = itertools.count(1)

    def create(self, template: str = "template1") -> str:
        """Clone `template` and return the name of the new database."""
        name = f"test_{next(self._numbers)}"
        self._postgres.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self._postgres.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def migrated(self, *packages: str) -> str:
        """Return the name of a template with the schemas of these packages."""
        if packages not in self._templates:
            name = "_".join(("migrated", *packages))
            self.drop(name)
            self._postgres.execute(f"CREATE DATABASE {name}")
            for package in packages:
                migrate(package, self._postgres.url(name))
            self._templates[packages] = name
        return self._templates[packages]


def migrate(package: str, database_url: str) -> None:
    """Run a service's migrations as an operator would: `python -m PACKAGE migrate`."""
    done = subprocess.run(
        [sys.executable, "-m", package, "migrate"],
        env={**os.environ, "DATABASE_URL": database_url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=_MIGRATION_TIMEOUT_S,
    )
    if done.returncode:
        raise StoreError(f"python -m {package} migrate failed:\n{done.stdout}")

"""For tests only: stores for a while, databases, fresh or cloned from a template migrated once, and stores' ports."""

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
from launcher.probe import status_of
from launcher.server import Server, StoreError

AnyServer = TypeVar("AnyServer", bound=Server)
_MIGRATION_TIMEOUT_S = 120
_READY_S = 90


@contextmanager
def started(server: AnyServer) -> Iterator[AnyServer]:
    """In the end it is killed, and its state deleted."""
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(server.state, ignore_errors=True)


async def until_ready(ops_port: int) -> None:
    """Wait for the service that tells there whether it is."""
    async with asyncio.timeout(_READY_S):
        while True:
            if await status_of("127.0.0.1", ops_port) == 200:
                return
            await asyncio.sleep(0.02)


def note_ports(state: Path, postgres: int, valkey: int) -> None:
    """Have the stores of a launcher listen there: what it chose itself another test might just be about to use."""
    state.mkdir(parents=True, exist_ok=True)
    for name, port in {"postgres": postgres, "valkey": valkey}.items():
        (state / f"{name}.port").write_text(str(port))


class Databases:
    """The databases of one test server; each template is migrated when it is first asked for."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres
        self._templates: dict[tuple[str, ...], str] = {}
        self._numbers = itertools.count(1)

    def create(self, template: str = "template1") -> str:
        """The name of a new database cloned from `template`."""
        name = f"test_{next(self._numbers)}"
        self._postgres.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        self._postgres.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def migrated(self, *packages: str) -> str:
        """The name of the template on which each package's migrations ran."""
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

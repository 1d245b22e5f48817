"""Fixtures that start the whole system and return a `System` of `system.py`."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from system import System

from launcher.ports import is_free

StartSystem = Callable[..., System]
collect_ignore = (
    [] if os.environ.get("BROWSER_TESTS") else ["browser"]
)  # only `make test-browser` installs what they need


def _new(tmp: Path, port_base: int, environment: dict[str, str]) -> System:
    return System(tmp / "state", port_base, environment)


@pytest.fixture(scope="session")
def port_base(free_port: Callable[[], int], own_ports: range) -> Callable[[], int]:
    """Call it for a base whose ten ports (base+0..5, base+1000..1003) are free and not reserved by another worker."""

    def find() -> int:
        while True:
            base = free_port()
            needed = (*range(base, base + 6), *range(base + 1000, base + 1004))
            if all(port in own_ports and is_free(port) for port in needed):
                return base

    return find


@pytest.fixture
def start_system(tmp_path: Path, port_base: Callable[[], int]) -> Iterator[StartSystem]:
    """Call it, with environment variables, for a running system that only this test uses."""
    started: list[System] = []

    def start(**environment: str) -> System:
        system = _new(tmp_path, port_base(), environment)
        started.append(system)
        system.start()
        return system

    yield start
    for system in started:
        system.stop()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, port_base: Callable[[], int]) -> Iterator[System]:
    """One running system shared by a module's tests. Each test uses different addresses."""
    shared = _new(tmp_path_factory.mktemp("system"), port_base(), {})
    try:
        shared.start()
        yield shared
    finally:
        shared.stop()

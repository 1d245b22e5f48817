"""Starts the system once, with limits out of the way; collected by `make test-api` alone, which has the tools."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from system import System

collect_ignore_glob = [] if os.environ.get("API_TESTS") else ["test_*.py"]


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, port_base: Callable[[], int]) -> Iterator[System]:
    policies = {"EDGE_POLICY_FILE": str(Path(__file__).with_name("policies.yaml"))}
    shared = System(tmp_path_factory.mktemp("api") / "state", port_base(), policies)
    try:
        shared.start()
        yield shared
    finally:
        shared.stop()


@pytest.fixture
def token(system: System) -> str:
    return system.service("edge_limiter").environ()["EDGE_ADMIN_TOKEN"]

"""Start the project once for all tests, and remove it with its data."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compose.stack import ROOT, Stack, docker, run

PROJECT = "sluice-test"
collect_ignore_glob = [] if os.environ.get("COMPOSE_TESTS") else ["test_*.py"]  # set by `make test-compose` alone


@pytest.fixture(scope="session")
def whole_stack(port_base: Callable[[], int], request: pytest.FixtureRequest) -> Iterator[Stack]:
    began = time.monotonic()
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    secrets = Path(tempfile.mkdtemp(prefix="secrets-", dir=cache))  # inside the build context, which must exclude them
    port = port_base()
    stack = Stack(PROJECT, secrets, [port, port + 1])
    stack.timed("build", lambda: run("make", "images", environment={"SECRETS": str(secrets)}, folder=ROOT))
    try:
        stack.timed("up", lambda: stack.scale(1))
        yield stack
    finally:
        stack.timed("down", lambda: stack.compose("--profile", "*", "down", "--volumes", "--timeout", "10"))
        shutil.rmtree(secrets)
        stack.times_s["the whole run"] = time.monotonic() - began
        _say(request, "  ".join(f"{name} {seconds:.1f} s" for name, seconds in stack.times_s.items()))
    assert leftovers() == []


@pytest.fixture
def stack(whole_stack: Stack) -> Stack:
    """The system with one replica of each service."""
    whole_stack.scale(1)
    return whole_stack


@pytest.fixture
def pairs(whole_stack: Stack) -> Stack:
    """The system with two replicas of each service."""
    whole_stack.scale(2)
    return whole_stack


@pytest.fixture
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line that also a passing run shows."""
    return lambda line: _say(request, line)


def leftovers() -> list[str]:
    """Return the containers, volumes and networks that are left of the project."""
    label = f"label=com.docker.compose.project={PROJECT}"
    kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
    return [found for kind in kinds for found in docker(*kind, "--quiet", "--filter", label).split()]


def _say(request: pytest.FixtureRequest, line: str) -> None:
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{line}", end="", flush=True)  # noqa: T201  # shows measurements

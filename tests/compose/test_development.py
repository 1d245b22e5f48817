"""compose.dev.yaml: a service runs from the sources, and starts again when one of its files changes."""

import time
from collections.abc import Iterator

import pytest
from compose.stack import DEPLOY, HEALTHY_S, ROOT, Stack, docker

SOURCES = ROOT / "services" / "metrics" / "metrics"


@pytest.fixture
def metrics(stack: Stack) -> Iterator[str]:
    """The container of metrics for development; afterwards the ordinary one runs again."""
    up = ("up", "--detach", "--wait", "--no-deps", "metrics")
    stack.compose(*up, COMPOSE_FILE=f"{stack.environment['COMPOSE_FILE']}:{DEPLOY}/compose.dev.yaml")
    yield stack.containers("metrics")[0]
    stack.compose(*up)


@pytest.mark.parametrize("name", ["aggregates.py", "dashboard/app.js"])
def test_a_changed_source__restarts_the_service(name: str, metrics: str, stack: Stack) -> None:
    before = pid(stack, metrics)
    (SOURCES / name).touch()
    deadline = time.monotonic() + HEALTHY_S
    while pid(stack, metrics) in (before, ""):
        assert time.monotonic() < deadline, docker("logs", "--tail", "20", metrics)
        time.sleep(0.2)
    while not is_ready(stack, metrics):
        assert time.monotonic() < deadline, docker("logs", "--tail", "20", metrics)
        time.sleep(0.2)


def pid(stack: Stack, container: str) -> str:
    """The process that serves, a child of the one that watches."""
    return stack.python(container, "print(open('/proc/1/task/1/children').read().strip())")


def is_ready(stack: Stack, container: str) -> bool:
    code = "import subprocess; print(subprocess.run(['healthcheck.py']).returncode)"
    return stack.python(container, code) == "0"

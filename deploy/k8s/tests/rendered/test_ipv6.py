"""Each service listens on IPv6 with the environment of its pod, without its stores."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k8s_check.__main__ import OVERLAYS, expected_secrets, find_kustomize, render
from k8s_check.model import Manifests

PROGRAMS = {"edge": "edge_limiter", "inference": "inference", "metrics": "metrics", "analyst": "analyst"}
TIMEOUT_S = 120.0

Start = Callable[[str], tuple["subprocess.Popen[bytes]", int, int]]


@pytest.fixture(scope="module")
def environments() -> dict[str, dict[str, str]]:
    kustomize = find_kustomize()
    assert kustomize is not None
    overlay = OVERLAYS / "prod-ipv6"
    pods = Manifests(render(kustomize, overlay), expected_secrets(overlay)).pods
    return {pod.owner.name: dict(pod.containers[0].environment) for pod in pods if pod.owner.kind == "Deployment"}


@pytest.fixture
def start(environments: dict[str, dict[str, str]], tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Start]:
    """Start a service and return its process, port and ops port. Its stores do not exist."""
    running: list[subprocess.Popen[bytes]] = []
    nowhere = {"DATABASE_URL": "postgresql://u:p@[::1]:1/db", "REDIS_HOST": "::1", "REDIS_PORT": "1"}

    def process(name: str) -> tuple["subprocess.Popen[bytes]", int, int]:
        port, ops_port = free_port(), free_port()
        environment = {key: value for key, value in environments[name].items() if not key.endswith("_FILE")}
        environment |= {f"{name.upper()}_PORT": str(port), f"{name.upper()}_OPS_PORT": str(ops_port)}
        environment |= nowhere | {"EVENTS_JOURNAL_DIR": str(tmp_path)}
        environment |= {"EDGE_ADMIN_TOKEN": "0" * 48, "EVENTS_HASH_KEY": "0" * 48}
        command = [sys.executable, "-m", PROGRAMS[name]]
        running.append(subprocess.Popen(command, env={"PATH": os.environ["PATH"], **environment}))
        return running[-1], port, ops_port

    yield process
    for one in running:
        one.kill()
        one.wait()


def status(url: str) -> int | None:
    """Return the status, or None if the connection fails."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return None


@pytest.mark.parametrize("name", PROGRAMS)
def test_service__listens_on_ipv6_with_the_environment_of_its_pod(name: str, start: Start) -> None:
    process, port, ops_port = start(name)
    deadline = time.monotonic() + TIMEOUT_S
    while (found := status(f"http://[::1]:{ops_port}/livez"), status(f"http://[::1]:{port}/nowhere")) != (200, 404):
        assert process.poll() is None and time.monotonic() < deadline, found
        time.sleep(0.05)
    assert status(f"http://127.0.0.1:{port}/nowhere") is None

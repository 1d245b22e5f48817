"""The tests of the adapters, on the PostgreSQL and Valkey images that compose.yaml deploys."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
import yaml
from compose.stack import DEPLOY, HEALTHY_S, ROOT, docker

IMAGES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
PASSWORD = "for-tests-only"
POSTGRES_OPTIONS = ("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
TESTS = (
    "libs/common/tests/stores/test_postgres.py",
    "libs/common/tests/stores/test_redis.py",
    "libs/common/tests/journal/test_publisher.py",
    "libs/common/tests/journal/test_recorder.py",
    "services/edge-limiter/tests/ratelimit/test_postgres.py",
    "services/edge-limiter/tests/ratelimit/test_housekeeping.py",
    "services/metrics/tests",
    "services/analyst/tests/cache/test_redis_store.py",
    "services/analyst/tests/llm/test_quota.py",
)


@pytest.fixture
def stores() -> Iterator[dict[str, str]]:
    """Start both stores and return the environment that points to them."""
    started: list[str] = []

    def start(image: str, port: int, *command: str, options: tuple[str, ...] = ()) -> int:
        started.append(docker("run", "--detach", "--rm", "--publish", f"127.0.0.1::{port}", *options, image, *command))
        return int(docker("port", started[-1], f"{port}/tcp").rpartition(":")[2])

    try:
        memory = (
            "--tmpfs",
            "/memory:mode=1777",
            "--env",
            "PGDATA=/memory/data",
            "--env",
            f"POSTGRES_PASSWORD={PASSWORD}",
        )
        postgres = start(
            IMAGES["x-postgres-image"], 5432, "postgres", *POSTGRES_OPTIONS, options=("--user", "postgres", *memory)
        )
        redis = start(IMAGES["x-redis-image"], 6379, "valkey-server", "--requirepass", PASSWORD, "--save", "")
        _wait(started[0], "pg_isready", "-q", "-h", "127.0.0.1")
        yield {
            "TEST_DATABASE_URL": f"postgresql://postgres:{PASSWORD}@127.0.0.1:{postgres}/postgres",
            "TEST_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{redis}/0",
        }
    finally:
        docker("rm", "--force", "--volumes", *started)


def _wait(container: str, *command: str) -> None:
    deadline = time.monotonic() + HEALTHY_S
    while subprocess.run(["docker", "exec", container, *command], check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, docker("logs", container)
        time.sleep(0.1)


def test_adapters__pass_on_the_deployed_stores(stores: dict[str, str], say: Callable[[str], None]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS],
        cwd=ROOT,
        env={**os.environ, **stores},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    say(f"adapter tests on the deployed stores: {done.stdout.splitlines()[-1]}")

"""The Compose project under test, driven like a user's: by `docker compose` and the published port."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "compose"
SERVICES = ("edge", "inference", "metrics", "analyst")
STORES = ("postgres", "redis")
OPS_PORTS = {name: 9000 + place for place, name in enumerate(SERVICES)}
HEALTHY_S = 90.0


def run(
    *words: str, environment: Mapping[str, str] | None = None, folder: Path | None = None, timeout_s: float = 600
) -> str:
    """Return the stdout of a command. Fails with its stderr."""
    env = {**os.environ, **(environment or {})}
    done = subprocess.run(words, env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=timeout_s)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


def docker(*words: str) -> str:
    return run("docker", *words).strip()


@dataclass
class Stack:
    """One Compose project with its own secrets and ports."""

    project: str
    secrets: Path
    ports: list[int]
    replicas: int = 0
    tag: str = "local"
    times_s: dict[str, float] = field(default_factory=dict)

    @property
    def urls(self) -> list[str]:
        """Return the published URL of each running edge."""
        return [f"http://127.0.0.1:{self.published(container)}" for container in self.containers("edge")]

    @property
    def published_range(self) -> str:
        return f"{self.ports[0]}-{self.ports[-1]}"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment with which `docker compose` uses this project."""
        return {
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_FILE": f"{DEPLOY}/compose.yaml:{ROOT}/tests/compose/settings.yaml",
            "PUBLISH_PORT": self.published_range,
            "PGADMIN_PORT": str(self.ports[-1] + 1),
            "SECRETS": str(self.secrets),
            "TAG": self.tag,
        }

    def compose(self, *words: str, **environment: str) -> str:
        return run("docker", "compose", *words, environment=self.environment | environment)

    def shell(self, script: str, folder: Path) -> str:
        """Run commands in order until one fails, and return their output."""
        return run("sh", "-euc", script, environment=self.environment, folder=folder)

    def timed(self, name: str, work: Callable[[], object]) -> None:
        started = time.monotonic()
        work()
        self.times_s[name] = time.monotonic() - started

    def scale(self, replicas: int) -> None:
        """Run this many healthy replicas of every service, without recreating any."""
        if replicas != self.replicas:
            scales = [part for name in SERVICES for part in ("--scale", f"{name}={replicas}")]
            self.compose("up", "--detach", "--wait", "--no-recreate", *scales)
            self.replicas = replicas

    def secret(self, name: str) -> str:
        return (self.secrets / name).read_text().strip()

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's running containers, by replica number."""
        label = f"label=com.docker.compose.project={self.project}"
        named = f"label=com.docker.compose.service={service}"
        listed = docker("ps", "--filter", label, "--filter", named, "--format", "{{.Names}} {{.ID}}")
        return [line.split()[1] for line in sorted(listed.splitlines())]

    def inspect(self, container: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(docker("inspect", container))
        return found[0]

    def published(self, container: str) -> int:
        return int(docker("port", container, "8000/tcp").rpartition(":")[2])

    def wait_healthy(self, container: str) -> None:
        deadline = time.monotonic() + HEALTHY_S
        while self.inspect(container)["State"].get("Health", {}).get("Status") != "healthy":
            assert time.monotonic() < deadline, docker("logs", "--tail", "20", container)
            time.sleep(0.1)

    def crash(self, container: str) -> None:
        """Kill a container, start it again, and wait until it is healthy."""
        docker("kill", "--signal", "KILL", container)
        docker("start", container)
        self.wait_healthy(container)

    def restart(self, container: str) -> None:
        docker("restart", container)
        self.wait_healthy(container)

    def python(self, container: str, code: str) -> str:
        """Run Python code in a container and return its output."""
        return docker("exec", container, "python", "-c", code)

    def metrics(self, service: str, container: str) -> str:
        """Return the metrics of one replica, read inside its container."""
        url = f"http://127.0.0.1:{OPS_PORTS[service]}/metrics"
        return self.python(
            container, f"import urllib.request as u; print(u.urlopen('{url}', timeout=5).read().decode())"
        )

    def sql(self, statement: str, database: str = "sluice") -> str:
        """Run a statement with psql in the container of PostgreSQL."""
        (postgres,) = self.containers("postgres")
        return docker("exec", postgres, "psql", "-XAtq", "-U", "postgres", "-d", database, "-c", statement)

"""One round against one server: requests per second, CPU time per request and latency."""

import functools
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.edge.edges import Edge
from benchmarks.edge.testbed import Process, Testbed, cpu_s

GENERATOR: Final = Path(__file__).parents[1] / "generator.py"
TEXT: Final = "A thoughtful, moving film that stays with you long after the credits have rolled past."
CLIENTS: Final = 20_000
PACED_RATE, PACED_CONNECTIONS = 200.0, 8


@dataclass(frozen=True, slots=True)
class Round:
    """Latencies are those of the closed loop; `paced` ones are at 200 requests per second."""

    per_second: float
    cpu_us: float
    postgres_us: float
    p50_ms: float
    p99_ms: float
    paced_p50_ms: float
    paced_p99_ms: float


@dataclass(slots=True)
class Contender:
    """A server under load, the processes whose CPU time is its cost, and its rounds so far."""

    label: str
    port: int
    processes: tuple[Process, ...]
    edge: Edge | None = None
    rounds: list[Round] = field(default_factory=list)


def measure(testbed: Testbed, contender: Contender, seconds: float, connections: int) -> Round:
    """A closed loop of `connections`, then half as long a paced load. Every answer must be 200."""
    closed, cpu_us, postgres_us = closed_loop(testbed, contender, "200", seconds=seconds, connections=connections)
    paced = load(testbed.folder, contender.port, seconds / 2, PACED_CONNECTIONS, CLIENTS, rate=PACED_RATE)
    answers, paced_answers = closed["statuses"]["200"], paced["statuses"]["200"]
    return Round(
        per_second=answers["count"] / closed["seconds"],
        cpu_us=cpu_us,
        postgres_us=postgres_us,
        p50_ms=answers["p50_ms"],
        p99_ms=answers["p99_ms"],
        paced_p50_ms=paced_answers["p50_ms"],
        paced_p99_ms=paced_answers["p99_ms"],
    )


def closed_loop(
    testbed: Testbed,
    contender: Contender,
    status: str,
    *,
    seconds: float,
    connections: int,
    clients: int = CLIENTS,
) -> tuple[dict[str, Any], float, float]:
    """Return the generator's result, and the CPU µs per request of the server and of PostgreSQL."""
    server_s, postgres_s = cpu_s(*contender.processes), cpu_s(testbed.postgres.process)
    result = load(testbed.folder, contender.port, seconds, connections, clients)
    server_s, postgres_s = cpu_s(*contender.processes) - server_s, cpu_s(testbed.postgres.process) - postgres_s
    if set(result["statuses"]) != {status}:
        raise SystemExit(f"{contender.label} answered {result['statuses']}, not {status} alone")
    count = result["statuses"][status]["count"]
    return result, server_s / count * 1e6, postgres_s / count * 1e6


def load(folder: Path, port: int, seconds: float, connections: int, clients: int, rate: float = 0.0) -> dict[str, Any]:
    """Send POST /predict, each request from the next of `clients` addresses. `folder` takes the generator's input."""
    command = [sys.executable, GENERATOR, "--port", port, "--path", "/predict", "--body", '{"text": @}']
    command += ["--texts", _texts(folder), "--seconds", seconds, "--connections", connections]
    command += ["--addresses", clients, "--rate", rate]
    result: dict[str, Any] = json.loads(subprocess.check_output([*map(str, command)]))
    return result


@functools.cache
def _texts(folder: Path) -> Path:
    file = folder / "texts"
    file.write_text(f"{TEXT}\n" * CLIENTS, encoding="utf-8")
    return file

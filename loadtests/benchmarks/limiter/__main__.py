"""Compare the limiter alone with other limiters in one run: decisions per second, medians of interleaved rounds.

    make bench ARGS="--only limiter", or with options:
    PYTHONPATH=loadtests .venv/bin/python -m benchmarks.limiter [--rounds 5] [--seconds 3]

Each contender is one process that decides for the same 5,000 clients in turn. A client may make 1,000 requests per
second, so nothing is refused. Every contender runs with the best of the settings tried.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks import results
from benchmarks.peers import install, versions
from launcher.ports import free_ports
from launcher.postgres import Postgres
from launcher.testing import migrate, started
from launcher.valkey import Valkey

HERE: Final = Path(__file__).parent
THREADS: Final = [1, 2, 4, 8]


@dataclass(slots=True)
class Contender:
    """`command` takes seconds and a setting. `wanted` is the factor by which ours should be ahead."""

    label: str
    command: Callable[[float, int], list[str]]
    settings: list[int]
    wanted: float | None = None
    rounds: list[float] = field(default_factory=list)
    best: int = 0

    def measure(self, seconds: float, setting: int) -> float:
        return float(json.loads(subprocess.check_output(self.command(seconds, setting)))["per_second"])

    def choose_setting(self) -> None:
        self.best = max(self.settings, key=lambda setting: self.measure(1.0, setting))


def main() -> None:
    options = _options()
    peers = str(install("limiters"))
    ports = free_ports(0, 1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(started(Postgres(folder / "postgres", next(ports))))
        valkey = stack.enter_context(started(Valkey(folder / "valkey", next(ports))))
        migrate("edge_limiter", postgres.url())
        contenders = _contenders(peers, postgres.url(), valkey.url())
        for contender in contenders:
            contender.choose_setting()
        for _ in range(options.rounds):
            for contender in contenders:
                contender.rounds.append(contender.measure(options.seconds, contender.best))
    notes = ["Best settings: " + ", ".join(f"{one.label} {one.best}" for one in contenders) + "."]
    found = versions("limiters", ("pyrate-limiter", "psycopg", "limits"))
    results.save("limiter", [_measured(contenders)], found, notes=notes)


def _contenders(peers: str, database: str, redis: str) -> list[Contender]:
    ours, single = (_command(sys.executable, "ours.py", name, database) for name in ("ours", "single"))
    pyrate, limits, limits_async = (
        _command(peers, "peers.py", name, url)
        for name, url in (("pyrate", database), ("limits", redis), ("limits-async", redis))
    )
    return [
        Contender("ours, concurrent decisions", ours, [64, 128, 256]),
        Contender("our statement for each request, connections", single, [1, 2, 4, 8], wanted=8),
        Contender("pyrate-limiter, PostgreSQL, threads", pyrate, THREADS, wanted=15),
        Contender("limits, moving window on Redis, threads", limits, THREADS, wanted=4),
        Contender("limits, the same with asyncio, concurrent decisions", limits_async, [1, 8, 32, 64], wanted=4),
    ]


def _command(python: str, script: str, name: str, url: str) -> Callable[[float, int], list[str]]:
    return lambda seconds, setting: [python, str(HERE / script), name, url, str(seconds), str(setting)]


def _measured(contenders: list[Contender]) -> results.Measure:
    rounds = {contender.label: contender.rounds for contender in contenders}
    wanted = {contender.label: contender.wanted for contender in contenders if contender.wanted is not None}
    return results.Measure("decisions/s", "more", contenders[0].label, rounds, wanted)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()

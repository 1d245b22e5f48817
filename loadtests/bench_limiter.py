"""The limiter alone beside others, in one run: decisions a second, medians of interleaved rounds.

    python loadtests/bench_limiter.py [--rounds 5] [--seconds 3]

One process each, the same 5,000 clients one after the other, 1,000 in a second allowed, so nothing is refused. Each
runs at the best of the settings tried; the peers are installed below .cache.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import results
from peers.install import install, versions

from launcher.ports import free_ports
from launcher.postgres import Postgres
from launcher.testing import migrate, started
from launcher.valkey import Valkey

HERE = Path(__file__).parent / "edge"


@dataclass
class Contender:
    """`command` takes seconds and a setting; `wanted` is by how much ours should be ahead."""

    label: str
    command: Callable[[float, int], list[str]]
    settings: list[int]
    wanted: str = ""
    rounds: list[float] = field(default_factory=list)
    best: int = 0

    def measure(self, seconds: float, setting: int) -> float:
        return float(json.loads(subprocess.check_output(self.command(seconds, setting)))["per_second"])

    def choose(self) -> None:
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
            contender.choose()
        for _ in range(options.rounds):
            for contender in contenders:
                contender.rounds.append(contender.measure(options.seconds, contender.best))
        _print(contenders, options)
    results.save("limiter", [_measured(contenders)], versions("limiters", ("pyrate-limiter", "psycopg", "limits")))


def _contenders(peers: str, database: str, redis: str) -> list[Contender]:
    def command(python: str, script: str, name: str, url: str) -> Callable[[float, int], list[str]]:
        return lambda seconds, setting: [python, str(HERE / script), name, url, str(seconds), str(setting)]

    ours, theirs, threads = "limiter_ours.py", "limiter_peers.py", [1, 2, 4, 8]
    return [
        Contender("ours, decisions waiting", command(sys.executable, ours, "ours", database), [64, 128, 256]),
        Contender(
            "our statement for each request, connections",
            command(sys.executable, ours, "single", database), [1, 2, 4, 8], "8",
        ),
        Contender("pyrate-limiter, PostgreSQL, threads", command(peers, theirs, "pyrate", database), threads, "15"),
        Contender("limits, moving window on Redis, threads", command(peers, theirs, "limits", redis), threads, "4"),
        Contender(
            "limits, the same with asyncio, decisions waiting",
            command(peers, theirs, "limits-async", redis), [1, 8, 32, 64], "4",
        ),
    ]  # fmt: skip


def _measured(contenders: list[Contender]) -> results.Measure:
    rounds = {contender.label: contender.rounds for contender in contenders}
    wanted = {contender.label: float(contender.wanted) for contender in contenders if contender.wanted}
    return results.Measure("decisions/s", "more", contenders[0].label, rounds, wanted)


def _print(contenders: list[Contender], options: argparse.Namespace) -> None:
    ours = statistics.median(contenders[0].rounds)
    print(f"{results.setup()}; {options.rounds} rounds of {options.seconds} s\n")
    print("| | best setting | decisions/s | of all rounds | ours is | wanted |")
    print("|---|---:|---:|---:|---:|---:|")
    for contender in contenders:
        median, least, most = statistics.median(contender.rounds), min(contender.rounds), max(contender.rounds)
        print(
            f"| {contender.label} | {contender.best} | {median:,.0f} | {least:,.0f}…{most:,.0f} "
            f"| {ours / median:.1f} × | {contender.wanted} |"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The limiter alone beside other limiters.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    return parser.parse_args()


if __name__ == "__main__":
    main()

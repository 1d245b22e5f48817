"""The edge beside its peers, in one run: requests/s and CPU per request, medians of interleaved rounds.

    python loadtests/bench_edge.py [--rounds 5] [--seconds 4] [--connections 64]

Everything is one process on this machine: 20,000 identities, nothing refused. nginx and HAProxy run when they are
installed; FastAPI with slowapi is installed below .cache.
"""

import argparse
import functools
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import results
from peers.install import install, versions

from launcher.ports import free_ports
from launcher.postgres import Postgres
from launcher.testing import migrate, started
from launcher.valkey import Valkey

HERE = Path(__file__).parent / "edge"
IDENTITIES = 20_000
BLOCKED = 1_000
CONTENDERS = {
    "upstream": "(a) upstream alone",
    "nginx": "(b) nginx, limit_req, keepalive upstream",
    "plain": "(c) plain aiohttp proxy, no limits",
    "slowapi": "(d) FastAPI + slowapi on Redis",
    "haproxy": "(e) HAProxy, stick table",
    "ours": "(f) ours, exact limit in PostgreSQL",
}

KINDS: tuple[tuple[str, Literal["more", "less"], str, dict[str, float]], ...] = (
    # what is measured, which is better, its name in a round, by what factor ours shall be better
    ("requests/s", "more", "per_second", {"plain": 2.0, "nginx": 0.6}),
    ("CPU µs of the process a request", "less", "cpu_us", {"plain": 2.4}),
)


@dataclass
class Contender:
    """A server to send to, and the processes whose time is its cost."""

    name: str
    port: int
    ops_port: int
    process: "subprocess.Popen[bytes]"
    rounds: list[dict[str, float]] = field(default_factory=list)

    def cpu_s(self) -> float:
        return _cpu_s(self.process.pid)


def main() -> None:
    options = _options()
    ports = free_ports(0, 1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        postgres = stack.enter_context(started(Postgres(folder / "postgres", next(ports))))
        valkey = stack.enter_context(started(Valkey(folder / "valkey", next(ports))))
        migrate("edge_limiter", postgres.url())
        upstream = next(ports)
        contenders = []
        for name, command, environment in _commands(ports, upstream, folder, postgres, valkey):
            port = int(environment.pop("BENCH_PORT"))
            ops_port = int(environment.get("EDGE_OPS_PORT", 0))
            process = stack.enter_context(_running(command, environment, port))
            contenders.append(Contender(name, port, ops_port, process))
        assert postgres.process is not None
        database = functools.partial(_cpu_s, postgres.process.pid)
        strict, ours = contenders.pop(), contenders[-1]
        for _ in range(options.rounds):
            for contender in contenders:
                _measure(contender, options, database)
        _check_exact(ours)
        _print(contenders, options)
        _print_flood(strict, ours, options, database)
    absent = [CONTENDERS[name] for name in CONTENDERS.keys() - {contender.name for contender in contenders}]
    results.save("edge", [_measured(contenders, *kind) for kind in KINDS], _versions(), sorted(absent))


def _commands(
    ports: Iterator[int], upstream: int, folder: Path, postgres: Postgres, valkey: Valkey
) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    python, origin = sys.executable, f"http://127.0.0.1:{upstream}"
    yield "upstream", [python, str(HERE / "upstream.py"), str(upstream)], {"BENCH_PORT": str(upstream)}
    if shutil.which("nginx"):
        port = next(ports)
        config = _config("nginx.conf", folder, PORT=port, UPSTREAM=upstream, FOLDER=folder)
        yield "nginx", ["nginx", "-c", str(config), "-p", str(folder)], {"BENCH_PORT": str(port)}
    port = next(ports)
    yield "plain", [python, str(HERE / "plain_proxy.py"), str(port), origin], {"BENCH_PORT": str(port)}
    port = next(ports)
    command = [str(install("slowapi")), str(HERE / "slowapi_app.py"), str(port), origin, valkey.url()]
    yield "slowapi", command, {"BENCH_PORT": str(port)}
    if shutil.which("haproxy"):
        port = next(ports)
        config = _config("haproxy.cfg", folder, PORT=port, UPSTREAM=upstream)
        yield "haproxy", ["haproxy", "-db", "-f", str(config)], {"BENCH_PORT": str(port)}
    common = {
        "DATABASE_URL": postgres.url(),
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(valkey.port),
        "REDIS_PASSWORD": valkey.password,
        **{f"EDGE_UPSTREAM_{name}": origin for name in ("INFERENCE", "METRICS", "ANALYST")},
        "EDGE_TRUSTED_PROXIES": "127.0.0.1/32",
        "LOG_FORMAT": "json",
    }
    for name, limit in (("ours", "1000"), ("strict", "10")):
        port = next(ports)
        environment = {
            "BENCH_PORT": str(port),
            "EDGE_PORT": str(port),
            "EDGE_OPS_PORT": str(next(ports)),
            "EDGE_RATE_LIMIT": limit,
            "EVENTS_HASH_KEY": name,  # so that the two share no row
            "EVENTS_JOURNAL_DIR": str(folder / name),
        }
        yield name, [python, "-m", "edge_limiter"], common | environment


def _versions() -> dict[str, str]:
    """Of the peers that are here."""
    found = versions("slowapi", ("fastapi", "slowapi"))
    for name, say in (("nginx", "-v"), ("haproxy", "-v")):
        if program := shutil.which(name):
            said = subprocess.run([program, say], capture_output=True, text=True, check=True)
            number = re.search(r"\d+(\.\d+)+", said.stdout + said.stderr)
            found[name] = number[0] if number else ""
    return found


def _config(name: str, folder: Path, **values: object) -> Path:
    text = (HERE / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    path = folder / name
    path.write_text(text)
    return path


@contextmanager
def _running(command: list[str], environment: dict[str, str], port: int) -> "Iterator[subprocess.Popen[bytes]]":
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _cpu_s(pid: int) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in _tree(pid))


def _load(port: int, seconds: float, connections: int, identities: int, pace: float = 0) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "load.py"), str(port), str(seconds), str(connections), str(identities)]
    result: dict[str, Any] = json.loads(subprocess.check_output([*command, *([str(pace)] if pace else [])]))
    return result


def _measure(contender: Contender, options: argparse.Namespace, database: Callable[[], float]) -> None:
    cpu, stored = contender.cpu_s(), database()
    result = _load(contender.port, options.seconds, options.connections, IDENTITIES)
    answered = result["requests"]
    if set(result["statuses"]) != {"200"} or result["lost"]:
        raise SystemExit(f"{contender.name}: {result}")
    contender.rounds.append(
        {
            "per_second": result["per_second"],
            "cpu_us": (contender.cpu_s() - cpu) / answered * 1e6,
            "database_us": (database() - stored) / answered * 1e6,
        }
    )


def _check_exact(edge: Contender) -> None:
    """Every request was decided by the store: a fallback to local decisions would be faster, and no exact limit."""
    with urllib.request.urlopen(f"http://127.0.0.1:{edge.ops_port}/metrics") as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("sluice_edge_decisions_total")]
    if not lines or any('outcome="allowed"' not in line or 'source="store"' not in line for line in lines):
        raise SystemExit(f"not all decided exactly: {lines}")


def _measured(
    contenders: list[Contender], what: str, better: Literal["more", "less"], key: str, wanted: dict[str, float]
) -> results.Measure:
    rounds = {CONTENDERS[contender.name]: [one[key] for one in contender.rounds] for contender in contenders}
    return results.Measure(
        what, better, CONTENDERS["ours"], rounds, {CONTENDERS[name]: n for name, n in wanted.items()}
    )


def _median(contender: Contender, key: str) -> float:
    return statistics.median(one[key] for one in contender.rounds)


def _print(contenders: list[Contender], options: argparse.Namespace) -> None:
    plain = next(contender for contender in contenders if contender.name == "plain")
    rounds = (
        f"{options.connections} connections, {IDENTITIES} identities, {options.rounds} rounds of {options.seconds} s"
    )
    print(f"{results.setup()}; {rounds}\n")
    print("| | requests/s | CPU µs/request | of (c) | PostgreSQL µs/request | p50 at 200/s, ms |")
    print("|---|---:|---:|---:|---:|---:|")
    for contender in contenders:
        paced = statistics.median(_load(contender.port, 3, 8, IDENTITIES, 200)["p50_ms"] for _ in range(3))
        cpu = _median(contender, "cpu_us")
        stored = f"{_median(contender, 'database_us'):.0f}" if contender.name == "ours" else ""
        print(
            f"| {CONTENDERS[contender.name]} | {_median(contender, 'per_second'):,.0f} | {cpu:.0f} "
            f"| {cpu / _median(plain, 'cpu_us'):.2f} | {stored} | {paced:.2f} |"
        )
    for name in CONTENDERS.keys() - {contender.name for contender in contenders}:
        print(f"\n{CONTENDERS[name]}: not installed here, not measured.")


def _print_flood(
    strict: Contender, ours: Contender, options: argparse.Namespace, database: Callable[[], float]
) -> None:
    """A thousand addresses far above their limit: after the first refusals nothing may reach the database."""
    while set(_load(strict.port, options.seconds, options.connections, BLOCKED)["statuses"]) != {"429"}:
        pass
    cpu, stored, statements = strict.cpu_s(), database(), _statements(strict)
    result = _load(strict.port, options.seconds, options.connections, BLOCKED)
    if set(result["statuses"]) != {"429"} or _statements(strict) != statements:
        raise SystemExit(f"the flood reached the database: {result['statuses']}")
    answered = result["requests"]
    edge_us, stored_us = ((now - then) / answered * 1e6 for now, then in ((strict.cpu_s(), cpu), (database(), stored)))
    print(
        f"\nFlood of {BLOCKED:,} blocked addresses: {result['per_second']:,.0f} refusals/s, no statement, "
        f"{edge_us:.0f} µs CPU each, PostgreSQL {stored_us:.1f} µs each; "
        f"{result['per_second'] / _median(ours, 'per_second'):.1f} times the proxied throughput."
    )


def _statements(edge: Contender) -> float:
    """How many the edge's limiter has sent to PostgreSQL so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{edge.ops_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("sluice_edge_batch_keys_count"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="The edge beside nginx, HAProxy, slowapi and a plain aiohttp proxy.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--connections", type=int, default=64)
    return parser.parse_args()


if __name__ == "__main__":
    main()

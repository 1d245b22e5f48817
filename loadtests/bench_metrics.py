"""Ingestion and a month of history beside the usual ways, in one run; prints a Markdown table.

    python loadtests/bench_metrics.py [--rows 10000000] [--events 200000] [--chdb-python PATH]

PATH is a Python that has `chdb` (without it the row of the embedded ClickHouse is left out). Needs about 5 GB of disk.
"""

import argparse
import asyncio
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import results
import structlog
import uvloop

from launcher import postgres as postgresql
from launcher.ports import free_ports
from launcher.postgres import Postgres
from launcher.testing import Databases, migrate
from launcher.valkey import Valkey

HERE = Path(__file__).parent / "metrics"
sys.path.insert(0, str(HERE))  # the folder's own modules; `metrics` itself is the service

from history import History  # noqa: E402
from ingestion import Rate, consumed, inserted, made_up  # noqa: E402

FOR_HISTORY = {
    **postgresql.SETTINGS,
    "fsync": "off",  # only reads of it are timed
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "synchronous_commit": "off",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--chdb-python", type=Path)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="bench-metrics-") as folder, ExitStack() as stopped:
        ports = free_ports(0, 1)
        print(setup(options.rows), flush=True)
        ingestion = report_ingestion(Path(folder), next(ports), next(ports), options.events)
        server = Postgres(Path(folder) / "history", next(ports), settings=FOR_HISTORY)
        stopped.callback(server.kill)
        server.start()
        history = uvloop.run(report_history(server, Path(folder), options))
    results.save("metrics", [ingestion, history])


def setup(rows: int) -> str:
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    version = subprocess.run([postgresql.binaries() / "postgres", "--version"], capture_output=True, text=True)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), {platform.system()}, "
        f"Python {platform.python_version()}, {version.stdout.strip()}, load average {load}, {rows:,} rows.\n\n"
        "| what | result | |\n|---|---:|---|"
    )


def report_ingestion(folder: Path, postgres_port: int, valkey_port: int, n: int) -> results.Measure:
    """With the settings of production: every commit is on disk."""
    postgres, valkey = Postgres(folder / "postgres", postgres_port), Valkey(folder / "valkey", valkey_port)
    with ExitStack() as stopped:
        for server in (postgres, valkey):
            stopped.callback(server.kill)
            server.start()
        migrate("metrics", postgres.url())

        async def run() -> list[Rate]:
            await consumed(postgres, valkey, made_up(10_000, seed=1))
            return [
                await consumed(postgres, valkey, made_up(n, seed=2)),
                await inserted(postgres.url(), made_up(n // 2, seed=3), one_by_one=False),
                await inserted(postgres.url(), made_up(min(n, 5_000), seed=4), one_by_one=True),
            ]

        rates = uvloop.run(run())
    for rate in rates:
        print(f"| {rate.name} | {rate.per_s:,.0f} events/s | {rates[0].per_s / rate.per_s:.2f}× |", flush=True)
    rounds = {rate.name: [rate.per_s] for rate in rates}
    return results.Measure("events/s into PostgreSQL", "more", rates[0].name, rounds)


async def report_history(server: Postgres, folder: Path, options: argparse.Namespace) -> results.Measure:
    databases = Databases(server)
    large, small = (History(server.url(databases.create(databases.migrated("metrics")))) for _ in range(2))
    filled_s = await large.fill(options.rows)
    await small.fill(options.rows // 10)
    raw_mb, rollup_mb = await large.sizes_mb()
    print(f"| making {options.rows:,} rows with rollups | {filled_s:.0f} s | raw {raw_mb} MB, rollups {rollup_mb} MB |")
    answer, seconds = await large.aggregated(options.rounds)
    _, small_s = await small.aggregated(options.rounds)
    exact, raw_s = await large.raw(3)
    print(f"| aggregated over 30 days | {seconds * 1000:.1f} ms | {answer.latency_ms.method} |")
    print(f"| percentile_cont over the raw rows | {raw_s * 1000:,.0f} ms | {raw_s / seconds:.0f}× |")
    print(f"| aggregated, a tenth of the rows | {small_s * 1000:.1f} ms | {seconds / small_s:.2f}× for ten times |")
    found = [answer.latency_ms.p50, answer.latency_ms.p90, answer.latency_ms.p95, answer.latency_ms.p99]
    error = max(abs((mine or 0) - truth) / truth for mine, truth in zip(found, exact, strict=True))
    print(f"| largest error of p50, p90, p95, p99 | {error:.3%} | bound {answer.latency_ms.relative_error:.3%} |")
    print(f"| count | {await large.count(options.rounds) * 1000:.2f} ms | {answer.predictions:,} |", flush=True)
    ours = "aggregated, whole answer"
    ms = {ours: [1000 * seconds], "percentile_cont over the raw rows": [1000 * raw_s]}
    if options.chdb_python:
        await large.copy_out(str(folder / "rows.csv"))
        given = (options.chdb_python, folder / "rows.csv", options.rounds, seconds)
        ms["chdb, aggregating view"] = [1000 * await asyncio.to_thread(report_clickhouse, *given)]
    return results.Measure(f"ms for 30 days of {options.rows:,} rows", "less", ours, ms)


def report_clickhouse(python: Path, rows: Path, rounds: int, seconds: float) -> float:
    """The seconds that its view took."""
    command = [str(python), str(HERE / "clickhouse.py"), str(rows), str(rounds)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    name = f"chdb {found['version']}, aggregating view, the same 30 days"
    print(f"| {name} | {found['view_s'] * 1000:.1f} ms | we take {seconds / found['view_s']:.2f}× of it |")
    print(f"| chdb over its raw rows | {found['raw_s'] * 1000:.1f} ms | |")
    return float(found["view_s"])


if __name__ == "__main__":
    main()

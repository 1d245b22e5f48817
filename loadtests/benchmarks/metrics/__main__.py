"""Compares ingestion and queries over a month with common alternatives, and checks exactly-once under kills.

    python -m benchmarks.metrics [--only ingestion,kills,history] [--rows 10000000] [--events 100000]

The embedded ClickHouse is installed below .cache. Without it its row is left out. Needs about 5 GB of disk.
Exits with 1 if an event was lost or counted twice.
"""

import argparse
import asyncio
import functools
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog
import uvloop

from benchmarks import results
from benchmarks.metrics.history import History, timed_ms
from benchmarks.metrics.ingestion import consumed, inserted, made_up
from benchmarks.peers import PACKAGES, install
from benchmarks.results import Measure
from common.contracts.aggregates import SKETCH_RELATIVE_ERROR, AggregateRequest
from launcher import postgres as postgresql
from launcher.ports import free_ports
from launcher.postgres import Postgres
from launcher.testing import Databases, started
from launcher.valkey import Valkey

HERE = Path(__file__).parent
PARTS: Final = ("ingestion", "kills", "history")
CONSUMED, MANY, SINGLE = "one consumer: stream to rollups", "executemany, rows only", "one INSERT an event, rows only"
PROMISED: Final = "promised"
EVENTS_PER_S, COUNT_MS, BUSY_MS, DEAREST_MS = 20_000, 1.0, 16.0, 250.0
BUSY_PER_S: Final = 400  # about the rate that two cores can score
ANSWER, RAW, VIEW = "aggregated, whole answer", "percentile_cont over the raw rows", "chdb, aggregating view"
FOR_HISTORY = {
    **postgresql.SETTINGS,
    "fsync": "off",  # only reads are timed
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "synchronous_commit": "off",
}


def main() -> int:
    options = _options()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    measures: list[Measure] = []
    chosen = options.only.split(",")
    with tempfile.TemporaryDirectory(prefix="bench-metrics-") as folder:
        if "ingestion" in chosen:
            measures += report_ingestion(Path(folder), options)
        if "kills" in chosen and subprocess.run([sys.executable, str(HERE / "kills.py")], check=False).returncode:
            return 1
        if "history" in chosen:
            measures += report_history(Path(folder), options)
    results.save("metrics", measures)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="only these parts, separated by commas")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of ingestion")
    parser.add_argument("--answers", type=int, default=40, help="answers to time over each history")
    return parser.parse_args()


def report_ingestion(folder: Path, options: argparse.Namespace) -> list[Measure]:
    """Store the same events with each method, in a new database with durable commits.

    The method with one INSERT per event gets only a twentieth of them.
    """
    ports = free_ports(0, 1)
    stores = Postgres(folder / "postgres", next(ports)), Valkey(folder / "valkey", next(ports))
    with started(stores[0]) as postgres, started(stores[1]) as valkey:
        databases = Databases(postgres)
        template = databases.migrated("metrics")
        events = made_up(options.events)
        ways: dict[str, Callable[[str], Awaitable[float]]] = {
            CONSUMED: lambda url: consumed(url, valkey, events),
            MANY: lambda url: inserted(url, events, one_by_one=False),
            SINGLE: lambda url: inserted(url, events[: len(events) // 20], one_by_one=True),  # slow
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                database = databases.create(template)
                rates[name].append(uvloop.run(_awaited(way(postgres.url(database)))))
                databases.drop(database)
                postgres.execute("CHECKPOINT")  # so that no method pays for the writes of another
    wanted = {PROMISED: 1.0}
    return [Measure("events/s into PostgreSQL", "more", CONSUMED, rates | {PROMISED: [EVENTS_PER_S]}, wanted)]


async def _awaited(work: Awaitable[float]) -> float:
    return await work


def report_history(folder: Path, options: argparse.Namespace) -> list[Measure]:
    with started(Postgres(folder / "history", next(free_ports(0, 1)), settings=FOR_HISTORY)) as server:
        databases = Databases(server)
        large, small, busy = (History(server.url(databases.create(databases.migrated("metrics")))) for _ in range(3))
        measures = uvloop.run(_report_busy(busy, options))
        return measures + uvloop.run(_report_history(large, small, folder, options))


async def _report_busy(history: History, options: argparse.Namespace) -> list[Measure]:
    """Measure short windows, whose ends are read from ten-second rollups."""
    await history.fill_busy(BUSY_PER_S, 15)
    last = AggregateRequest(window="5m")
    async with history.aggregates() as aggregates:
        await aggregates.answer(last)
        taken = [await timed_ms(lambda: aggregates.answer(last)) for _ in range(options.answers)]
    return [results.against(f"ms for the last 5 minutes of {BUSY_PER_S} predictions a second", "less", taken, BUSY_MS)]


async def _report_history(large: History, small: History, folder: Path, options: argparse.Namespace) -> list[Measure]:
    await large.fill(options.rows)
    await small.fill(options.rows // 10)
    by_size: dict[str, list[float]] = {f"{options.rows:,} rows": [], f"{options.rows // 10:,} rows": []}
    month = AggregateRequest(window="30d")
    async with large.aggregates() as one, small.aggregates() as other:
        answer = await one.answer(month)
        await other.answer(month)
        for _ in range(options.answers):
            for taken, aggregates in zip(by_size.values(), (one, other), strict=True):
                taken.append(await timed_ms(functools.partial(aggregates.answer, month)))
        finest = [await timed_ms(lambda: one.answer(large.finest())) for _ in range(3)]
    exact, raw_ms = await large.raw(3)
    sketch = [answer.latency_ms.p50, answer.latency_ms.p90, answer.latency_ms.p95, answer.latency_ms.p99]
    error = max(abs((mine or 0) - truth) / truth for mine, truth in zip(sketch, exact, strict=True))
    (of_large, answers_ms), _ = by_size.items()
    ms = {ANSWER: answers_ms, RAW: raw_ms} | await asyncio.to_thread(clickhouse_ms, large, folder, options.answers)
    return [
        Measure(f"ms for 30 days of {options.rows:,} rows", "less", ANSWER, ms, {RAW: 200.0, VIEW: 0.33}),
        Measure("ms for 30 days by size", "less", of_large, by_size, {name: 0.67 for name in list(by_size)[1:]}),
        results.against("ms for the most buckets and every group", "less", finest, DEAREST_MS),
        results.against("ms for the exact count", "less", await large.count(options.answers), COUNT_MS),
        results.against("% of error of percentiles", "less", [100 * error], 100 * SKETCH_RELATIVE_ERROR),
    ]


def clickhouse_ms(history: History, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Return the times of its view and of raw rows. Empty if it cannot be installed."""
    try:
        python = install("chdb")
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"\nThe embedded ClickHouse could not be installed ({type(error).__name__}): its rows are left out.")
        return {}
    rows = folder / "rows.csv"
    asyncio.run(history.copy_out(str(rows)))
    command = [str(python), str(HERE / "clickhouse.py"), str(rows), str(rounds)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    print(f"ClickHouse {found['version']} of {PACKAGES['chdb'][0]} read them in {found['fill_s']:.0f} s.")
    return {VIEW: found["view_ms"], "chdb, its raw rows": found["raw_ms"]}


if __name__ == "__main__":
    sys.exit(main())

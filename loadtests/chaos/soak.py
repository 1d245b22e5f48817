"""A long steady load on the whole system: memory, file descriptors, tasks, p99 and table bloat must stay flat.

    make soak ARGS="--minutes 60 --share 0.7"
    make soak ARGS="--rate 50"

Without `--rate` it measures the peak first (20 s) and takes `--share` of it. Prints a row every few minutes; exits
with 1 when something grew.
"""

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.answers import Answer, is_shed
from chaos.command import add_port_base, at_least, new_folder
from chaos.load import Crowd, Load
from chaos.stack import Stack, StartError
from chaos.watch import Sample, Watch
from chaos.windows import Span
from chaos.yardstick import TOO_SLOW, Yardstick

PEAK_S: Final = 20.0
PEAK_CLIENTS: Final = 48
CLIENTS: Final = 24
ROWS: Final = 12
LARGEST: Final = 8
ENVIRONMENT: Final = {
    "EDGE_TRUSTED_PROXIES": "127.0.0.1/32",
    "EDGE_RATE_LIMIT": "1000",
    "EDGE_RATE_WINDOW_S": "1",
    "METRICS_MAINTENANCE_S": "60",
    "INFERENCE_CACHE_BYTES": "4194304",  # full before the warm-up ends
}
NAMES: Final = ("edge-limiter", "inference", "metrics", "analyst", "postgres", "valkey")
WARM_UP_SHARE: Final = 0.25
MOST_GROWTH: Final = 0.10
MOST_P99_GROWTH: Final = 1.0  # other programs share the machine: a doubling is a finding, less is not
MOST_DEAD_SHARE: Final = 0.5
FEW_DEAD: Final = 2_000
MOST_TABLE_GROWTH: Final = 0.5  # of the bytes a row takes; below MANY_BYTES it is noise
MANY_BYTES: Final = 4 << 20

_TABLES: Final = """
SELECT schemaname || '.' || relname AS name, n_live_tup AS live, n_dead_tup AS dead,
       pg_total_relation_size(relid) AS size_bytes
FROM pg_stat_user_tables WHERE schemaname IN ('edge', 'metrics', 'analyst') AND n_live_tup + n_dead_tup > 0
ORDER BY 4 DESC
"""


@dataclass(frozen=True, slots=True)
class Table:
    name: str
    live: int
    dead: int
    size_bytes: int

    @property
    def is_bloated(self) -> bool:
        return self.dead > max(FEW_DEAD, self.live * MOST_DEAD_SHARE)


@dataclass(frozen=True, slots=True)
class Row:
    """One stretch of the run."""

    until_s: float
    requests: int
    shed: int
    failed: int
    p50_ms: float
    p99_ms: float
    samples: dict[str, Sample]
    tables: list[Table]
    slowness: float = 1.0


async def soak(options: argparse.Namespace, folder: Path) -> bool:
    stack = Stack(folder, options.port_base, ENVIRONMENT)
    try:
        await stack.start()
        rate = options.rate or options.share * await _peak(stack)
        print(f"steady load: {rate:.0f} requests a second for {options.minutes:g} minutes", flush=True)
        rows = await _steady(stack, rate, options.minutes * 60)
    finally:
        await stack.stop()
    _say_tables(rows[-1].tables)
    wrong = judged(rows)
    print("\n".join(["\nNOT FLAT:", *wrong]) if wrong else "\nflat")
    return not wrong


async def _peak(stack: Stack) -> float:
    """Requests a second that impatient clients get answered."""
    load = Load(stack.url, 1, Crowd(0, 0, PEAK_CLIENTS, 0.0, 0, 0, 0, 0, 0, 0))
    running = asyncio.create_task(load.run())
    await asyncio.sleep(PEAK_S)
    load.stop()
    await running
    rate = sum(answer.status == 200 for answer in load.answers) / PEAK_S
    print(f"peak on this machine now: {rate:.0f} predictions a second", flush=True)
    return rate


async def _steady(stack: Stack, rate: float, seconds: float) -> list[Row]:
    crowd = Crowd(0, 0, CLIENTS, CLIENTS / rate, 1, 2.0, 1, 5.0, 1, 2.0)
    load, watch, yardstick = Load(stack.url, 2, crowd), Watch(stack, every_s=5.0), Yardstick()
    running, beside = asyncio.create_task(load.run()), [asyncio.create_task(one.run()) for one in (watch, yardstick)]
    rows: list[Row] = []
    started = time.monotonic()
    print(_HEAD, flush=True)
    try:
        for number in range(1, ROWS + 1):
            await asyncio.sleep(max(0.0, started + seconds * number / ROWS - time.monotonic()))
            answers, load.answers = load.answers, []
            slowness = yardstick.slowness(Span(time.time() - seconds / ROWS, time.time()))
            rows.append(_row(time.monotonic() - started, answers, watch, await _tables(stack), slowness))
            watch.samples.clear()
            print(_printed(rows[-1]), flush=True)
    finally:
        load.stop()
        await running
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    return rows


def _row(until_s: float, answers: Sequence[Answer], watch: Watch, tables: list[Table], slowness: float) -> Row:
    predictions = sorted(a.answered_s - a.sent_s for a in answers if a.path == "/predict" and a.status == 200)
    failed = sum(answer.status != 200 and not is_shed(answer) for answer in answers)
    shed = sum(map(is_shed, answers))
    if not predictions:
        raise StartError("no prediction was answered for a while; the logs of the services say why")
    p50_ms, p99_ms = (1000 * predictions[len(predictions) * share // 100] for share in (50, 99))
    samples = {name: _middle(found) for name in NAMES if (found := watch.samples.get(name))}
    return Row(until_s, len(answers), shed, failed, p50_ms, p99_ms, samples, tables, slowness)


def _middle(samples: Sequence[Sample]) -> Sample:
    """Medians: an average would follow one short peak."""
    return Sample(*(type(column[0])(statistics.median(column)) for column in zip(*samples, strict=True)))


async def _tables(stack: Stack) -> list[Table]:
    connection = await stack.database()
    try:
        return [Table(*row) for row in await connection.fetch(_TABLES)]
    finally:
        await connection.close()


_HEAD: Final = (
    "| minute | requests | shed | failed | p50 ms | p99 ms | RSS MiB, fds, tasks: "
    + " | ".join(NAMES)
    + " | dead rows | live rows | tables MiB | times slower |\n|"
    + "---:|" * (len(NAMES) + 10)
)


def _printed(row: Row) -> str:
    seen = [row.samples.get(name) for name in NAMES]
    processes = ["not seen" if s is None else f"{s.rss_mib:.0f}, {s.fds}, {s.tasks}" for s in seen]
    dead, live = sum(table.dead for table in row.tables), sum(table.live for table in row.tables)
    mib = sum(table.size_bytes for table in row.tables) / (1 << 20)
    numbers = [
        f"{row.until_s / 60:.1f}",
        f"{row.requests:,}",
        str(row.shed),
        str(row.failed),
        f"{row.p50_ms:.1f}",
        f"{row.p99_ms:.1f}",
    ]
    return (
        "| " + " | ".join([*numbers, *processes, f"{dead:,}", f"{live:,}", f"{mib:.1f}", f"{row.slowness:.1f}"]) + " |"
    )


def judged(rows: Sequence[Row]) -> list[str]:
    """What is not flat: the last third after the warm-up beside the first.

    Times are judged only where the machine left its programs enough of them.
    """
    warm = rows[int(len(rows) * WARM_UP_SHARE) :]
    first, last = warm[: len(warm) // 3], warm[-(len(warm) // 3) :]
    wrong = [line for name in NAMES for line in _grown(name, first, last)]
    wrong += _bloated(first[-1].tables, last[-1].tables)
    before, after = ([row.p99_ms for row in part if row.slowness < TOO_SLOW] for part in (first, last))
    if before and after and min(after) > min(before) * (1 + MOST_P99_GROWTH):
        wrong.append(f"best p99 {min(before):.1f} to {min(after):.1f} ms")
    if failed := sum(row.failed for row in rows if row.slowness < TOO_SLOW):
        wrong.append(f"{failed:,} requests failed")
    return wrong


def _say_tables(tables: Sequence[Table]) -> None:
    print("\n| table | rows | dead | MiB | bytes a row |\n|---|---:|---:|---:|---:|")
    for table in tables[:LARGEST]:
        each = table.size_bytes / max(1, table.live)
        print(f"| {table.name} | {table.live:,} | {table.dead:,} | {table.size_bytes / (1 << 20):.1f} | {each:.0f} |")


def _bloated(before: Sequence[Table], after: Sequence[Table]) -> list[str]:
    """Tables of which much is dead, or that grew where their rows did not."""
    found = [f"{table.name}: {table.dead:,} dead rows of {table.live:,}" for table in after if table.is_bloated]
    earlier = {table.name: table for table in before}
    for table in after:
        was = earlier.get(table.name, table)
        expected = was.size_bytes * max(1.0, table.live / max(1, was.live))
        if table.size_bytes > expected * (1 + MOST_TABLE_GROWTH) + MANY_BYTES:
            found.append(
                f"{table.name}: {was.size_bytes >> 20} to {table.size_bytes >> 20} MiB for {table.live:,} rows"
            )
    return found


def _typical(samples: Sequence[Sample], field: str) -> float:
    if not samples:
        raise StartError("a service did not say its tasks for a third of the run: the machine is too busy")
    return float(statistics.median(getattr(sample, field) for sample in samples))


def _grown(name: str, first: Sequence[Row], last: Sequence[Row]) -> list[str]:
    """PostgreSQL's and Valkey's memory hold data, which grows with the rows: only their descriptors are judged."""
    found = []
    for field, most in (("rss_mib", MOST_GROWTH), ("fds", MOST_GROWTH), ("tasks", MOST_GROWTH)):
        before, after = (
            _typical([row.samples[name] for row in part if name in row.samples], field) for part in (first, last)
        )
        is_data = field == "rss_mib" and name in ("postgres", "valkey")
        if after > before * (1 + most) + 4 and not is_data:
            found.append(f"{name}: {field} {before:.0f} to {after:.0f}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=at_least(2.0), default=60.0)
    parser.add_argument("--rate", type=at_least(0.0), default=0.0, help="requests a second")
    parser.add_argument("--share", type=at_least(0.01), default=0.7, help="of the peak")
    add_port_base(parser)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was started must be stopped
    print(f"{os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f}")
    folder = new_folder("soak")
    try:
        return 0 if asyncio.run(soak(options, folder)) else 1
    except StartError as error:
        print(error)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

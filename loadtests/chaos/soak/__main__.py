"""A long steady load on the whole system: memory, file descriptors, tasks, p99 and table bloat must stay flat.

    make soak ARGS="--minutes 60 --share 0.7"
    make soak ARGS="--rate 50"

Without `--rate` it measures the peak first (40 s) and uses `--share` of it as the rate, which must be reached. Prints a
row every few minutes. Exits with 1 if something grew, with 2 if the machine was too busy for a result.
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
from dataclasses import replace
from pathlib import Path
from typing import Final

from chaos.answers import Answer, is_shed
from chaos.command import BROKEN, HOLDS, INCONCLUSIVE, add_port_base, at_least, ended, new_folder
from chaos.load import Crowd, Load
from chaos.soak.flatness import MAX_INCONCLUSIVE, NAMES, Row, Table, growth, reached, starved_share
from chaos.system.stack import Stack, StartError
from chaos.system.watch import Sample, Watch
from chaos.system.yardstick import Yardstick
from chaos.windows import Span

PEAK_S: Final = 20.0
PEAK_CLIENTS: Final = 48
OVERLOAD: Final = 1.25
ROWS: Final = 12
LARGEST: Final = 8
ENVIRONMENT: Final = {
    "EDGE_TRUSTED_PROXIES": "127.0.0.1/32",
    "EDGE_RATE_LIMIT": "1000",
    "EDGE_RATE_WINDOW_S": "1",
    "EDGE_METRICS_RATE_LIMIT": "1000",
    "EDGE_METRICS_RATE_WINDOW_S": "1",
    "METRICS_MAINTENANCE_S": "60",
    "INFERENCE_CACHE_BYTES": "4194304",  # full before the warm-up ends
}

_NOBODY: Final = Crowd(greedy=0, ordinary=0, ordinary_s=0.0, lists=0, analysts=0, dashboards=0)
_TABLES: Final = """
SELECT schemaname || '.' || relname AS name, n_live_tup AS live, n_dead_tup AS dead,
       pg_total_relation_size(relid) AS size_bytes
FROM pg_stat_user_tables WHERE schemaname IN ('edge', 'metrics', 'analyst') AND n_live_tup + n_dead_tup > 0
ORDER BY 4 DESC
"""


async def soak(options: argparse.Namespace, folder: Path) -> int:
    """Run the soak. Returns the exit status."""
    stack = Stack(folder, options.port_base, ENVIRONMENT)
    try:
        await stack.start()
        peak = 0.0 if options.rate else await _peak(stack)
        rate = options.rate or options.share * peak
        print(f"steady load: {rate:.0f} predictions a second for {options.minutes:g} minutes", flush=True)
        rows = await _steady(stack, rate, options.minutes * 60)
    finally:
        await stack.stop()
    _say_tables(rows[-1].tables)
    _say_reached(reached(rows), peak)
    wrong, starved = growth(rows, rate), starved_share(rows)
    if wrong:
        print("\n".join(["\nNOT FLAT:", *wrong]))
        return BROKEN
    if starved > MAX_INCONCLUSIVE:
        print(f"\nINCONCLUSIVE: in {starved:.0%} of the intervals the machine was too busy")
        return INCONCLUSIVE
    print("\nflat")
    return HOLDS


async def _peak(stack: Stack) -> float:
    """Return the peak in predictions per second.

    Measured with random arrivals at 1.25 times the closed-loop rate: clients that wait for responses synchronise with
    the batches, and random arrivals cost more.
    """
    in_step = await _answered(stack, 1, replace(_NOBODY, ordinary=PEAK_CLIENTS))
    by_chance = await _answered(stack, 2, replace(_NOBODY, paced=OVERLOAD * in_step))
    print(f"peak on this machine now: {by_chance:.0f} predictions a second ({in_step:.0f} in step)", flush=True)
    return by_chance


async def _answered(stack: Stack, seed: int, crowd: Crowd) -> float:
    """Return the predictions answered per second."""
    load = Load(stack.url, seed, crowd)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(PEAK_S)
    until_s = time.time()
    load.stop()
    await running
    return sum(answer.status == 200 and answer.answered_s <= until_s for answer in load.answers) / PEAK_S


async def _steady(stack: Stack, rate: float, seconds: float) -> list[Row]:
    crowd = Crowd(greedy=0, ordinary=0, lists=1, lists_s=2.0, analysts=1, analysts_s=5.0, dashboards_s=2.0, paced=rate)
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
        await ended(beside)
    return rows


def _row(until_s: float, answers: Sequence[Answer], watch: Watch, tables: list[Table], slowness: float) -> Row:
    predictions = sorted(a.answered_s - a.sent_s for a in answers if a.path == "/predict" and a.status == 200)
    failed = sum(answer.status != 200 and not is_shed(answer) for answer in answers)
    shed = sum(map(is_shed, answers))
    if not predictions:
        raise StartError("no prediction was answered for a while; the logs of the services say why")
    p50_ms, p99_ms = (1000 * predictions[len(predictions) * share // 100] for share in (50, 99))
    samples: dict[str, Sample] = {name: _middle(found) for name in NAMES if (found := watch.samples.get(name))}
    return Row(until_s, len(answers), len(predictions), shed, failed, p50_ms, p99_ms, samples, tables, slowness)


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
    "| minute | requests | shed | failed | p50 ms | p99 ms | RSS MiB, fds (+ of clients), tasks: "
    + " | ".join(NAMES)
    + " | dead rows | live rows | tables MiB | times slower |\n|"
    + "---:|" * (len(NAMES) + 10)
)


def _printed(row: Row) -> str:
    seen = [row.samples.get(name) for name in NAMES]
    processes = ["not seen" if s is None else f"{s.rss_mib:.0f}, {_fds(s)}, {s.tasks}" for s in seen]
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


def _fds(sample: Sample) -> str:
    """Return a process's file descriptors without, and with, its clients' connections."""
    return f"{sample.own_fds} + {sample.clients}" if sample.clients else f"{sample.own_fds}"


def _say_reached(rate: float, peak: float) -> None:
    share = f", {rate / peak:.2f} of the peak" if peak else ""
    print(f"\n{rate:.0f} predictions a second were answered{share}")


def _say_tables(tables: Sequence[Table]) -> None:
    print("\n| table | rows | dead | MiB | bytes a row |\n|---|---:|---:|---:|---:|")
    for table in tables[:LARGEST]:
        each = table.size_bytes / max(1, table.live)
        print(f"| {table.name} | {table.live:,} | {table.dead:,} | {table.size_bytes / (1 << 20):.1f} | {each:.0f} |")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=at_least(2.0), default=60.0)
    parser.add_argument("--rate", type=at_least(0.0), default=0.0, help="requests a second (0: by --share)")
    parser.add_argument("--share", type=at_least(0.01), default=0.7, help="share of the peak to send (0.7)")
    add_port_base(parser)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that started processes are stopped
    print(f"{os.cpu_count()} cores, load average at the start {os.getloadavg()[0]:.1f}")
    folder = new_folder("soak")
    try:
        return asyncio.run(soak(options, folder))
    except StartError as error:
        print(error)
        return BROKEN
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

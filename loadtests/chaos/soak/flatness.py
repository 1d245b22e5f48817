"""Checks that memory, descriptors, tasks, p99 and tables stayed flat under a long steady load. Pure functions."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from chaos.answers import MOST_SHED
from chaos.system.stack import SERVICES, STORES
from chaos.system.watch import Sample
from chaos.system.yardstick import TOO_SLOW

NAMES: Final = (*SERVICES, *STORES)
WARM_UP_SHARE: Final = 0.25
MOST_GROWTH: Final = 0.10
MOST_P99_GROWTH: Final = 0.5
BY_CHANCE: Final = 1.645  # standard deviations: 5 % of series without a trend exceed it
MAX_INCONCLUSIVE: Final = 0.2  # share of intervals on a starved machine
LEAST_REACHED: Final = 0.93  # of the requested rate
MOST_DEAD_SHARE: Final = 0.5
FEW_DEAD: Final = 2_000
MOST_TABLE_GROWTH: Final = 0.5  # in bytes per row; below MANY_BYTES it is noise
MANY_BYTES: Final = 4 << 20


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
    """One interval of the run."""

    until_s: float
    requests: int
    predictions: int
    shed: int
    failed: int
    p50_ms: float
    p99_ms: float
    samples: dict[str, Sample]
    tables: list[Table]
    slowness: float = 1.0


def growth(rows: Sequence[Row], rate: float) -> list[str]:
    """Return what grew, by the medians of the first and last third after the warm-up and by the overall slope.

    Latencies count only in intervals with enough processor time.
    """
    warm = _warm(rows)
    third = len(warm) // 3
    wrong = [line for name in NAMES for line in _grown(name, warm)]
    wrong += _bloated(warm[third - 1].tables, warm[-1].tables)
    in_time = [row for row in warm if row.slowness < TOO_SLOW]
    before, after = _course(in_time, [row.p99_ms for row in in_time])
    if after > before * (1 + MOST_P99_GROWTH):
        wrong.append(f"p99 {before:.1f} to {after:.1f} ms")
    if failed := sum(row.failed for row in rows if row.slowness < TOO_SLOW):
        wrong.append(f"{failed:,} requests failed")
    shed = sum(row.shed for row in in_time)
    if shed > MOST_SHED * sum(row.requests for row in in_time):
        wrong.append(f"{shed:,} requests were shed")
    if starved_share(rows) <= MAX_INCONCLUSIVE and reached(rows) < LEAST_REACHED * rate:
        wrong.append(f"{reached(rows):.0f} predictions a second were answered, not {rate:.0f}")
    return wrong


def reached(rows: Sequence[Row]) -> float:
    """Return the predictions answered per second."""
    return sum(row.predictions for row in rows) / rows[-1].until_s


def starved_share(rows: Sequence[Row]) -> float:
    """Return the share of starved intervals after the warm-up."""
    warm = _warm(rows)
    return sum(row.slowness >= TOO_SLOW for row in warm) / len(warm)


def _warm(rows: Sequence[Row]) -> Sequence[Row]:
    return rows[int(len(rows) * WARM_UP_SHARE) :]


def _bloated(before: Sequence[Table], after: Sequence[Table]) -> list[str]:
    """Return tables with many dead rows, and tables that grew more than their rows."""
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


def _grown(name: str, warm: Sequence[Row]) -> list[str]:
    """Return the metrics that grew.

    For the stores only descriptors count, because their memory holds data. Client connections of the edge do not
    count: an open-loop load opens one per late response. Descriptors and tasks vary with the requests in flight, so
    they must also show a trend.
    """
    seen = [row for row in warm if name in row.samples]
    if len(seen) < len(warm) / 2:
        return [f"{name} did not say its tasks in half of the stretches"]
    found = []
    for field in ("rss_mib", "own_fds", "tasks"):
        values = [float(getattr(row.samples[name], field)) for row in seen]
        before, after = _course(seen, values)
        is_data = field == "rss_mib" and name in ("postgres", "valkey")
        may_scatter = field != "rss_mib"
        if after > before * (1 + MOST_GROWTH) + 4 and not is_data and (not may_scatter or _has_trend(values)):
            found.append(f"{name}: {field} {before:.0f} to {after:.0f}")
    return found


def _course(rows: Sequence[Row], values: Sequence[float]) -> tuple[float, float]:
    """Return start and end: medians of the outer thirds, or the values implied by the overall slope if larger.

    The slope is the Theil-Sen estimator, so that one outlier is no trend.
    """
    if len(rows) < 3:
        return 0.0, 0.0
    third = len(rows) // 3
    before, after = statistics.median(values[:third]), statistics.median(values[-third:])
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for earlier, later in combinations(zip([row.until_s for row in rows], values, strict=True), 2)
    ]
    led_to = before + statistics.median(slopes) * (rows[-1].until_s - rows[0].until_s)
    return before, max(after, min(led_to, max(values)))


def _has_trend(values: Sequence[float]) -> bool:
    """Return whether values increase, by the one-sided Mann-Kendall test."""
    score = sum((later > earlier) - (later < earlier) for earlier, later in combinations(values, 2))
    n = len(values)
    return score - 1 > BY_CHANCE * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)

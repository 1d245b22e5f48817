"""When an incident began and ended: the most unusual segment of a time series.

Method: circular binary segmentation (Olshen et al., Biostatistics 2004) over values that are standardised by median
and median absolute deviation, and clipped, so that one outlier is not an incident.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from statistics import fmean, median
from typing import Final

from common.contracts.aggregates import Aggregate, SeriesPoint

MIN_POINTS: Final = 6
MAX_POINTS: Final = 400
CLIP: Final = 6.0
LIMIT: Final = 7.0
"""Of the segment's statistic; 200 points of noise exceed it less than once in a thousand times."""
_NORMAL_MAD: Final = 1.4826
_LEAST_SCALE: Final = 0.05  # of the median: smaller changes are never an incident

Measure = Callable[[SeriesPoint], float | None]
MEASURES: Final[dict[str, Measure]] = {
    "errors": lambda point: point.errors / point.requests if point.requests else None,
    "latency": lambda point: point.p95,
    "tail": lambda point: point.p99,
    "limited": lambda point: float(point.rate_limited),
    "volume": lambda point: float(point.requests),
}


@dataclass(frozen=True, slots=True)
class Incident:
    """From `onset` to `end`, which is None if it lasts to the end of the window."""

    onset: datetime
    end: datetime | None


def find_incident(aggregate: Aggregate, signal: str) -> Incident | None:
    """Return the incident behind an observation's signal, or None if its series shows none."""
    measure = MEASURES.get(signal.partition("_")[0])
    if measure is None:
        return None
    measured = [(point, measure(point)) for point in aggregate.series[-MAX_POINTS:]]
    known = [(point, value) for point, value in measured if value is not None]
    sign = -1.0 if signal.endswith("_down") else 1.0
    segment = high_segment([sign * value for _, value in known])
    if segment is None:
        return None
    start, end = segment
    return Incident(known[start][0].at, known[end][0].at if end < len(known) else None)


def high_segment(values: Sequence[float]) -> tuple[int, int] | None:
    """Return the half-open segment of unusually high values, or None if there is none."""
    if len(values) < MIN_POINTS:
        return None
    middle = median(values)
    scale = max(_NORMAL_MAD * median(abs(value - middle) for value in values), _LEAST_SCALE * abs(middle), 1e-9)
    scores = [max(-CLIP, min(CLIP, (value - middle) / scale)) for value in values]
    sums = [0.0, *accumulate(scores)]
    n, total = len(values), sums[-1]
    best, segment = 0.0, (0, 0)
    for start in range(n):
        for end in range(start + 2, n + 1):
            size = end - start
            if size < n:
                statistic = abs(sums[end] - sums[start] - total * size / n) / math.sqrt(size * (n - size) / n)
                if statistic > best:
                    best, segment = statistic, (start, end)
    return _high_part(values, segment) if best >= LIMIT else None


def _high_part(values: Sequence[float], segment: tuple[int, int]) -> tuple[int, int]:
    """The most unusual segment may be the low one; then the longer of the parts around it is high."""
    start, end = segment
    inside = fmean(values[start:end])
    outside = fmean([*values[:start], *values[end:]])
    return segment if inside > outside else max((0, start), (end, len(values)), key=lambda part: part[1] - part[0])

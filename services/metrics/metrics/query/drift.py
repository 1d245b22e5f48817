"""Measures how far a distribution moved, compared with what chance explains. Pure functions.

The population stability index (PSI) sums (p - q) ln(p / q) over bins. Between two samples of n and m from the same
distribution it is about χ² / n + χ² / m, with one degree of freedom less than there are bins (Yurdakul, 2018),
so a small sample has a large PSI without any drift: `noise` is the 99.9th percentile of that.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from statistics import NormalDist
from typing import Final, NamedTuple, TypeVar

from common.contracts.aggregates import Drift
from metrics.query.accumulator import Accumulator

DRIFTED: Final = 0.1  # the usual threshold between a stable and a drifted distribution
ENOUGH: Final = 100  # samples required on both sides
_SMOOTHING: Final = 0.5  # added to each bin: an empty one would make the index infinite
_Z: Final = NormalDist().inv_cdf(0.999)

Bin = TypeVar("Bin", int, str)


class Drifts(NamedTuple):
    """Drift of the labels, scores and text lengths of answered predictions."""

    labels: Drift
    confidence: Drift
    length: Drift


def drifts(now: Accumulator, before: Accumulator) -> Drifts:
    """Compare `now` with `before`."""
    return Drifts(
        _compare(now.labels, before.labels),
        _compare(now.scores(), before.scores()),
        _compare(_octaves(now.lengths()), _octaves(before.lengths())),
    )


def _compare(now: Mapping[Bin, int], before: Mapping[Bin, int]) -> Drift:
    n, m = sum(now.values()), sum(before.values())
    if min(n, m) < ENOUGH:
        return Drift(n=n, reference_n=m)
    bins = sorted(now.keys() | before.keys())
    psi = _stability(_smoothed(now, bins), _smoothed(before, bins))
    noise = _chi_squared(len(bins) - 1) * (1 / n + 1 / m)
    value = max(0.0, psi - noise)
    return Drift(n=n, reference_n=m, psi=psi, noise=noise, value=value, drifted=value >= DRIFTED)


def _octaves(histogram: Mapping[int, int]) -> Counter[int]:
    """Merge quarter octaves into octaves: fewer bins need fewer samples."""
    octaves: Counter[int] = Counter()
    for bin, n in histogram.items():
        octaves[-(-bin // 4)] += n
    return octaves


def _smoothed(counts: Mapping[Bin, int], bins: Iterable[Bin]) -> list[float]:
    weights = [counts.get(bin, 0) + _SMOOTHING for bin in bins]
    total = sum(weights)
    return [weight / total for weight in weights]


def _stability(p: list[float], q: list[float]) -> float:
    return sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))


def _chi_squared(freedom: int) -> float:
    """Return the 99.9th percentile of the χ² distribution (Wilson and Hilferty, 1931)."""
    if not freedom:
        return 0.0
    spread = 2 / (9 * freedom)
    return float(freedom * (1 - spread + _Z * math.sqrt(spread)) ** 3)

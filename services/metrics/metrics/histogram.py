"""Sparse histograms: what their bins stand for, and percentiles with a known error; it stores nothing.

A histogram maps a bin to a count, so merging is adding: any order gives the same result. A rollup row keeps four of
them in one array, the bin numbers of each starting at a multiple of STRIDE (the SQL function `bins_of` fills it).
The latency grid is DDSketch's (Masson, Rim and Lee, 2019) with γ = 2^(1/32): bin i holds (γ^(i-1), γ^i] µs.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

STRIDE: Final = 1024
LATENCY, SCORE, MARGIN, CHARACTERS = range(4)
"""Which histogram a bin number belongs to, and where its bins start: `number // STRIDE`, `number % STRIDE`."""

GAMMA: Final = 2 ** (1 / 32)
RELATIVE_ERROR: Final = (GAMMA - 1) / (GAMMA + 1)
"""How far `sketch_us` may be from any latency in its bin, as a share of that latency: 1.083 %."""


def sketch_us(bin: int) -> float:
    """The latency that stands for `bin`: its relative distance to both ends is the same."""
    return 2 * GAMMA**bin / (GAMMA + 1)


def percentiles(histogram: Mapping[int, int], *shares: float) -> list[int]:
    """The bin of the value at each share, by the definition of percentile_disc. Raises on no values."""
    bins = sorted(histogram)
    if not bins:
        raise ValueError("no values")
    cumulated = list(accumulate(histogram[bin] for bin in bins))
    return [bins[bisect_left(cumulated, math.ceil(share * cumulated[-1]))] for share in shares]

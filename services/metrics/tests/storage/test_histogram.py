"""Percentiles of a histogram: exact over values, within the stated error over bins."""

import math
import random
import struct
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.contracts.aggregates import SKETCH_RELATIVE_ERROR
from metrics.storage.histogram import BIN_BITS, GAMMA, bin_value, bins, percentiles, read, spread

histograms = st.dictionaries(st.integers(0, 1023), st.integers(1, 10**12 - 1))
SHARES = (0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)


def bin_of(latency_us: int) -> int:
    return math.ceil(math.log(max(latency_us, 1), GAMMA) - 1e-9)


def percentile_disc(values: list[int], share: float) -> int:
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def lognormal(rng: random.Random) -> int:
    return max(1, round(rng.lognormvariate(9, 1.2)))


def bimodal(rng: random.Random) -> int:
    return max(1, round(rng.gauss(900, 40) if rng.random() < 0.7 else rng.gauss(40_000, 3_000)))


def constant(_rng: random.Random) -> int:
    return 4_321


def test_error_bound__is_what_the_design_promises() -> None:
    assert SKETCH_RELATIVE_ERROR == (GAMMA - 1) / (GAMMA + 1) <= 0.01084


@pytest.mark.parametrize("distribution", [lognormal, bimodal, constant])
@given(seed=st.integers(0, 2**32), n=st.integers(1, 3_000))
def test_sketch_percentile__is_within_the_stated_error_of_percentile_disc(
    distribution: Callable[[random.Random], int], seed: int, n: int
) -> None:
    rng = random.Random(seed)
    values = [distribution(rng) for _ in range(n)]
    sketch = sum(1 << BIN_BITS * bin_of(value) for value in values)
    for share, bin in zip(SHARES, percentiles(*spread(sketch), *SHARES), strict=True):
        exact = percentile_disc(values, share)
        assert abs(bin_value(bin) - exact) <= exact * (SKETCH_RELATIVE_ERROR + 1e-9)


@given(st.lists(st.integers(1, 2**31 - 1), min_size=1), st.sampled_from(SHARES))
def test_percentile_of_exact_values__is_percentile_disc(values: list[int], share: float) -> None:
    assert percentiles(sorted(values), [1] * len(values), share) == [percentile_disc(values, share)]


def test_percentile_of_nothing__raises() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentiles(*spread(0), 0.5)


def as_sent(histogram: dict[int, int]) -> bytes:
    """Encode a numeric as PostgreSQL does: digits of base 10000 without outer zeros, and the first one's exponent."""
    counts = (histogram.get(bin, 0) for bin in range(max(histogram, default=0), -1, -1))
    digits = [digit for n in counts for digit in (n // 10_000**2, n // 10_000 % 10_000, n % 10_000)]
    first = next((place for place, digit in enumerate(digits) if digit), len(digits))
    power = max(len(digits) - first - 1, 0)
    digits = digits[first:]
    while digits and not digits[-1]:
        digits.pop()
    return struct.pack(f">hhHH{len(digits)}H", len(digits), power, 0, 0, *digits)


@settings(deadline=None)
@given(st.lists(histograms, max_size=5))
def test_histograms_as_sent__add_up_bin_by_bin(some: list[dict[int, int]]) -> None:
    total = Counter[int]()
    for one in some:
        total.update(one)
    assert bins(sum(read(as_sent(one)) for one in some)) == dict(sorted(total.items()))

"""Histograms encoded as integers, and percentiles with a bounded error. Pure functions.

Bin i is the i-th group of bits of the number (in PostgreSQL: of decimal digits), so merging histograms is adding
numbers, and any order gives the same result. The latency grid is DDSketch's (Masson, Rim and Lee, 2019) with
γ = 2^(1/32): bin i holds (γ^(i-1), γ^i] µs. A bin counts up to 10^12.
"""

import math
import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

LATENCY, SCORE, CHARACTERS, QUEUE, COMPUTE, TOKENS = range(6)
"""The columns of a row's histograms."""

GAMMA: Final = 2 ** (1 / 32)

BIN_BITS: Final = 48
_BIN_BYTES: Final = BIN_BITS // 8
_DIGIT_BITS: Final = 16
_BINS_MAX: Final = 1024
_LAST_DIGITS: Final[int] = sum(0xFFFF << BIN_BITS * bin for bin in range(_BINS_MAX))


def read(sent: bytes) -> int:
    """Decode a histogram from PostgreSQL's binary numeric: each bin has three digits of base 10000."""
    digits, first_power = struct.unpack_from(">hh", sent)
    number: int = int.from_bytes(sent[8:], "big") << _DIGIT_BITS * (first_power + 1 - digits)
    high, middle = number >> 2 * _DIGIT_BITS, number >> _DIGIT_BITS
    return (high & _LAST_DIGITS) * 10_000**2 + (middle & _LAST_DIGITS) * 10_000 + (number & _LAST_DIGITS)


def spread(histogram: int) -> tuple[range, tuple[int, ...]]:
    """Return the index of the first non-empty bin, and the counts from it to the last."""
    first = ((histogram & -histogram).bit_length() - 1) // BIN_BITS if histogram else 0
    filled = histogram >> first * BIN_BITS
    n = -(-filled.bit_length() // BIN_BITS)
    packed, wide = filled.to_bytes(n * _BIN_BYTES, "little"), bytearray(n * 8)
    for byte in range(_BIN_BYTES):
        wide[byte::8] = packed[byte::_BIN_BYTES]
    return range(first, first + n), struct.unpack(f"<{n}Q", wide)


def bins(histogram: int) -> dict[int, int]:
    """Return the counts of the non-empty bins, in order."""
    return {bin: n for bin, n in zip(*spread(histogram), strict=True) if n}


def bin_value(bin: int) -> float:
    """Return the value that represents `bin`: its relative distance to both ends is equal."""
    return 2 * GAMMA**bin / (GAMMA + 1)


def percentiles(values: Sequence[int], counts: Iterable[int], *shares: float) -> list[int]:
    """Return the percentile at each share, as PostgreSQL's percentile_disc defines it. `values` ascend.

    Raises ValueError without values.
    """
    cumulated = list(accumulate(counts))
    if not cumulated:
        raise ValueError("no values")
    return [values[bisect_left(cumulated, math.ceil(share * cumulated[-1]))] for share in shares]

"""int8 quantisation: ranges of inputs, outliers moved into the weights, and scales that cannot saturate."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.weights import Array, Linear

ORDINARY_RANK = 16
"""A channel is an outlier where it exceeds the 16th largest of its layer's input."""

PAIR_LIMIT = 128
"""255 · 128 fits in the 16-bit sum of two products that CPUs without VNNI form; 255 · (127 + 127) doesn't."""


LEAST_STEP = 1e-9
"""The scale for a row, column or input of zeros."""


@dataclass(frozen=True, slots=True)
class Range:
    """The least and the greatest value seen in each channel of a layer's input."""

    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """A linear layer on bytes: x · `shrink` is rounded to steps of `input_scale` from `input_zero`.

    `shrink` is None where no channel of the input needs it.
    """

    weight: NDArray[np.int8]
    weight_scale: Array
    bias: Array
    input_scale: np.float32
    input_zero: np.uint8
    shrink: Array | None


def merge_ranges(ranges: Iterable[Range]) -> Range:
    low, high = zip(*((each.low, each.high) for each in ranges), strict=True)
    # Rounded, so that the last bits of another CPU's arithmetic do not change the model.
    return Range(np.min(low, axis=0).round(3), np.max(high, axis=0).round(3))


def quantise_linears(linears: Mapping[str, Linear], ranges: Mapping[str, Range]) -> dict[str, Int8Linear]:
    """Every linear layer whose input range is known."""
    return {name: quantise_linear(linears[name], ranges[name], smooth=_needs(name)) for name in ranges}


def quantise_linear(linear: Linear, seen: Range, smooth: bool) -> Int8Linear:
    """int8 weights with a scale per output, uint8 inputs with one scale fixed by `seen`.

    A fixed scale makes scores independent of the batch.
    """
    grow = outlier_factors(seen) if smooth else np.ones_like(seen.low)
    weight, weight_scale = quantise_weight(linear.weight * grow[:, None])
    low = min(float(np.min(seen.low / grow)), 0.0)
    high = max(float(np.max(seen.high / grow)), 0.0)
    input_scale = np.float32(max((high - low) / 255, LEAST_STEP))
    return Int8Linear(
        weight=weight,
        weight_scale=weight_scale,
        bias=linear.bias,
        input_scale=input_scale,
        input_zero=np.uint8(round(-low / float(input_scale))),
        shrink=(1 / grow).astype(np.float32) if smooth else None,
    )


def outlier_factors(seen: Range) -> Array:
    """Return by what factor each channel exceeds an ordinary one, at least 1 (SmoothQuant, outliers only)."""
    peak = np.maximum(np.abs(seen.low), np.abs(seen.high))
    ordinary = max(np.sort(peak)[-ORDINARY_RANK], LEAST_STEP)
    factors: Array = np.maximum(peak / ordinary, 1).astype(np.float32)
    return factors


def quantise_weight(weight: Array) -> tuple[NDArray[np.int8], Array]:
    """Round to int8 per output so that two neighbouring inputs of equal sign never add up to more than 128.

    That is 7 bits for the worst output and nearly 8 for the others, where `reduce_range` takes 7 everywhere.
    """
    first, second = weight[0::2], weight[1::2]
    together = np.where(np.sign(first) == np.sign(second), np.abs(first + second), 0)
    scale = np.maximum(np.abs(weight).max(axis=0), together.max(axis=0)) / 127
    scale = np.maximum(scale, LEAST_STEP)
    # The sum of two roundings exceeds 127 by one at most, which is the limit.
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def quantise_rows(table: Array) -> tuple[NDArray[np.int8], Array]:
    """int8 with one scale per row, for a table of which rows are looked up."""
    scale = np.maximum(np.abs(table).max(axis=1, keepdims=True) / 127, LEAST_STEP)
    return np.rint(table / scale).astype(np.int8), scale.astype(np.float32)


def _needs(name: str) -> bool:
    """Return whether a layer's input can have outliers. Attention outputs are averages and cannot."""
    return not name.endswith(".out")

"""Quantisation: small error, no saturation on any CPU, outliers moved and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training.quantise import (
    PAIR_LIMIT,
    Range,
    merge_ranges,
    outlier_factors,
    quantise_linear,
    quantise_rows,
    quantise_weight,
)
from training.weights import Array, Linear


def draw(seed: int, *shape: int) -> Array:
    """Heavy-tailed, as weights are."""
    return np.random.default_rng(seed).standard_t(3, shape).astype(np.float32)


@given(seed=st.integers(0, 2**32 - 1), inputs=st.integers(1, 40), outputs=st.integers(1, 8))
def test_products_of_two_neighbours__always_fit_16_bits(seed: int, inputs: int, outputs: int) -> None:
    weight, _ = quantise_weight(draw(seed, 2 * inputs, outputs))
    pairs = weight.astype(int).reshape(inputs, 2, outputs)
    positive = np.maximum(pairs, 0).sum(axis=1)
    negative = np.minimum(pairs, 0).sum(axis=1)
    assert max(positive.max(), -negative.min()) <= PAIR_LIMIT
    assert 255 * positive.max() <= np.iinfo(np.int16).max
    assert 255 * negative.min() >= np.iinfo(np.int16).min


@given(seed=st.integers(0, 2**32 - 1))
def test_rows_of_a_table__keep_a_scale_each(seed: int) -> None:
    table = draw(seed, 16, 8)
    rows, scale = quantise_rows(table)
    assert (np.abs(rows * scale - table) <= scale * 0.501).all()


def test_only_outlier_channels__are_shrunk() -> None:
    seen = Range(low=np.full(32, -1, np.float32), high=np.ones(32, np.float32))
    seen.high[3], seen.low[5] = 24, -8
    factors = outlier_factors(seen)
    assert (factors[3], factors[5]) == (24, 8)
    assert factors.sum() == 24 + 8 + 30


@pytest.mark.parametrize("smooth", [False, True])
def test_int8_layer__approximates_the_float_layer(smooth: bool) -> None:
    linear = Linear(draw(1, 64, 8), draw(2, 8))
    x = np.random.default_rng(3).normal(size=(200, 64)).astype(np.float32)
    x[:, 7] *= 20
    layer = quantise_linear(linear, Range(x.min(axis=0), x.max(axis=0)), smooth)
    shrunk = x if layer.shrink is None else x * layer.shrink
    rounded = np.clip(np.rint(shrunk / layer.input_scale) + layer.input_zero, 0, 255) - layer.input_zero
    found = (rounded @ layer.weight.astype(np.float64)) * (layer.input_scale * layer.weight_scale) + layer.bias
    expected = x @ linear.weight + linear.bias
    error = np.abs(found - expected).mean() / np.abs(expected).mean()
    assert error < (0.02 if smooth else 0.1)


def test_input_of_zero__is_exact() -> None:
    layer = quantise_linear(
        Linear(draw(1, 32, 4), draw(2, 4)), Range(np.full(32, 2, np.float32), np.full(32, 3, np.float32)), False
    )
    assert layer.input_zero == 0
    assert layer.input_scale == pytest.approx(3 / 255)


def test_ranges__merge_and_round() -> None:
    one = Range(np.array([-1.00004, 0.0], np.float32), np.array([1.0, 2.0], np.float32))
    other = Range(np.array([-0.5, -0.25], np.float32), np.array([3.0, 1.99996], np.float32))
    merged = merge_ranges([one, other])
    assert merged.low.tolist() == pytest.approx([-1.0, -0.25])
    assert merged.high.tolist() == pytest.approx([3.0, 2.0])

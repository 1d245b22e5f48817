"""Cutting texts into the shapes of a GPU."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.torch.shapes import MAX_ROWS, ShapeGrid

LENGTHS = st.lists(st.integers(1, 512), max_size=2000)


@given(LENGTHS, st.integers(512, 20_000))
def test_every_text__is_in_one_batch_that_holds_it(lengths: list[int], max_tokens: int) -> None:
    pieces = list(ShapeGrid(512, max_tokens).cut(lengths))

    assert sorted(index for _, indices in pieces for index in indices) == list(range(len(lengths)))
    for shape, indices in pieces:
        assert 1 <= len(indices) <= shape.rows <= MAX_ROWS
        assert max(lengths[index] for index in indices) <= shape.length
        assert shape.tokens <= max_tokens


@given(LENGTHS)
def test_batches__are_ordered_longest_first(lengths: list[int]) -> None:
    order = [lengths[index] for _, indices in ShapeGrid(512, 4096).cut(lengths) for index in indices]

    assert order == sorted(lengths, reverse=True)


@given(LENGTHS)
def test_padding__costs_less_than_another_batch(lengths: list[int]) -> None:
    pieces = list(ShapeGrid(512, 16_384).cut(lengths))
    filler = sum((shape.rows - len(indices)) * shape.length for shape, indices in pieces)

    assert filler <= 2048 * len(pieces)


def test_a_text_beyond_the_greatest_length__is_refused() -> None:
    with pytest.raises(IndexError):
        list(ShapeGrid(512, 1024).cut([513]))


def test_a_grid_that_cannot_hold_one_text__is_refused() -> None:
    with pytest.raises(ValueError, match="greatest length"):
        ShapeGrid(512, 256)


def test_shapes__come_largest_first_and_none_is_longer_than_asked() -> None:
    shapes = ShapeGrid(512, 16_384).shapes(128)

    assert shapes[0].tokens == max(shape.tokens for shape in shapes)
    assert {shape.length for shape in shapes} == {8, 16, 24, 32, 48, 64, 96, 128}
    assert len(shapes) == len(set(shapes))

"""Cutting texts into the shapes of a GPU."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.engines.torch.shapes import MAX_ROWS, Shape, ShapeGrid

LENGTHS = st.lists(st.integers(1, 512), max_size=2000)


@given(LENGTHS, st.integers(512, 20_000))
def test_any_texts__are_each_in_one_piece_that_holds_them(lengths: list[int], max_tokens: int) -> None:
    pieces = list(ShapeGrid(512, max_tokens).cut(lengths))

    assert sorted(index for _, indices in pieces for index in indices) == list(range(len(lengths)))
    for shape, indices in pieces:
        assert 1 <= len(indices) <= shape.rows <= MAX_ROWS
        assert max(lengths[index] for index in indices) <= shape.length
        assert shape.tokens <= max_tokens


@given(LENGTHS)
def test_any_piece__is_of_a_shape_of_the_grid(lengths: list[int]) -> None:
    grid = ShapeGrid(512, 4096)
    known = set(grid.shapes(512))

    assert all(shape in known for shape, _ in grid.cut(lengths))


@given(LENGTHS)
def test_pieces__come_longest_first(lengths: list[int]) -> None:
    order = [lengths[index] for _, indices in ShapeGrid(512, 4096).cut(lengths) for index in indices]

    assert order == sorted(lengths, reverse=True)


@given(LENGTHS)
def test_padding__stays_below_what_its_pieces_save(lengths: list[int]) -> None:
    pieces = list(ShapeGrid(512, 16_384).cut(lengths))
    filler = sum((shape.rows - len(indices)) * shape.length for shape, indices in pieces)

    assert filler <= 2048 * len(pieces)


def test_one_long_text_among_many_short_ones__does_not_pad_them() -> None:
    assert [shape.length for shape, _ in ShapeGrid(512, 16_384).cut([16] * 200 + [300])] == [384, 16]


def test_a_few_texts_of_different_lengths__share_a_piece() -> None:
    assert list(ShapeGrid(512, 16_384).cut([9, 25, 16, 12])) == [(Shape(4, 32), (1, 2, 3, 0))]


def test_one_text__pads_to_the_next_length_alone() -> None:
    assert list(ShapeGrid(512, 16_384).cut([25])) == [(Shape(1, 32), (0,))]


def test_a_text_of_the_greatest_length__fits() -> None:
    assert list(ShapeGrid(500, 512).cut([500])) == [(Shape(1, 500), (0,))]


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


def test_a_model_of_few_tokens__has_a_grid() -> None:
    assert {shape.length for shape in ShapeGrid(6, 64).shapes(128)} == {6}

"""Owns the few shapes a GPU runs and how texts are cut into them; knows no runtime and no token ids.

A CUDA graph is recorded for one shape, so every batch is rounded up to a shape of a small grid.
"""

import itertools
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

MAX_ROWS: Final = 512
_SHORTEST: Final = 8
_PIECE_COST_TOKENS: Final = 2048  # what a small GPU model computes in the time that a piece costs by itself


@dataclass(frozen=True, slots=True)
class Shape:
    """`rows` texts of `length` tokens each, padding included."""

    rows: int
    length: int

    @property
    def tokens(self) -> int:
        return self.rows * self.length


PaddedBatch: TypeAlias = tuple[Shape, tuple[int, ...]]  # the texts that go there, by index


class ShapeGrid:
    """Shapes for texts of up to `max_length` tokens; none holds more than `max_tokens`, which one text must fit."""

    def __init__(self, max_length: int, max_tokens: int) -> None:
        if max_length > max_tokens:
            raise ValueError("a text of the greatest length must fit a shape")
        self.max_tokens = max_tokens
        self._lengths = tuple(_steps(_SHORTEST, max_length))
        self._rows = tuple(_steps(1, MAX_ROWS))

    def shapes(self, up_to_length: int) -> list[Shape]:
        """All shapes of at most that length, the largest first."""
        lengths = [length for length in self._lengths if length <= up_to_length]
        shapes = [Shape(rows, length) for length in lengths for rows in self._rows_of(length)]
        return sorted(shapes, key=lambda shape: shape.tokens, reverse=True)

    def cut(self, lengths: Sequence[int]) -> Iterator[PaddedBatch]:
        """Every text once, like lengths together, the longest first. Raises IndexError beyond `max_length`.

        A piece takes on padding only while that is cheaper than a piece more.
        """
        for length, group in self._groups(lengths):
            start = 0
            while start < len(group):
                shape = Shape(self._rows_for(length, len(group) - start), length)
                yield shape, tuple(group[start : start + shape.rows])
                start += shape.rows

    def _groups(self, lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
        """Texts by the length they are padded to, the longest first."""
        rounded = [_at_least(self._lengths, length) for length in lengths]
        order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
        longest, open_group = 0, list[int]()
        for length, indices in itertools.groupby(order, key=rounded.__getitem__):
            group = list(indices)
            if open_group and len(group) * (longest - length) > _PIECE_COST_TOKENS:
                yield longest, open_group
                open_group = []
            longest = longest if open_group else length
            open_group += group
        if open_group:
            yield longest, open_group

    def _rows_for(self, length: int, count: int) -> int:
        """The rows of the next piece of `count` texts."""
        steps = self._rows_of(length)
        if count >= steps[-1]:
            return steps[-1]
        enough = bisect_left(steps, count)
        filler = (steps[enough] - count) * length
        return steps[enough - 1] if filler > _PIECE_COST_TOKENS else steps[enough]

    def _rows_of(self, length: int) -> tuple[int, ...]:
        return tuple(rows for rows in self._rows if rows * length <= self.max_tokens)


def _steps(first: int, limit: int) -> Iterator[int]:
    """`first` and its doublings, from 16 on with a step halfway, and `limit` itself: 8, 16, 24, 32, 48, 64, 96, …"""
    step = first
    while step < limit:
        yield step
        if step >= 16 and step * 3 // 2 < limit:
            yield step * 3 // 2
        step *= 2
    yield limit


def _at_least(steps: Sequence[int], value: int) -> int:
    return steps[bisect_left(steps, value)]

"""Remembers what was worked out of a client's words, in bounded memory: only short ones, and so many of them."""

import functools
from collections.abc import Callable
from typing import Final, TypeVar

MEMO_LENGTH: Final = 64
"""What is longer is worked out each time: a client may make up as many words as long as a head."""

T = TypeVar("T")


def memo(size: int) -> Callable[[Callable[[str], T]], Callable[[str], T]]:
    """The `size` words that were asked for last."""

    def decorate(function: Callable[[str], T]) -> Callable[[str], T]:
        remembered = functools.lru_cache(size)(function)

        @functools.wraps(function)
        def call(word: str) -> T:
            return remembered(word) if len(word) <= MEMO_LENGTH else function(word)

        return call

    return decorate

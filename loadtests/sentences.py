"""Generates texts for benchmarks: as long as the sentences of SST-2, from the words of our own sentences."""

import random
from pathlib import Path
from typing import Final

_OUR_SENTENCES: Final = Path(__file__).parents[1] / "services" / "inference" / "training" / "sentences.txt"
_SHORTEST: Final = 2
_SENTENCES_BY_WORDS: Final = (  # numbers of sentences in SST-2's development set with 2 words, 3, 4, …
    *(2, 1, 5, 16, 22, 19, 22, 36, 29, 27, 31, 29, 37, 35, 43, 35, 29, 39, 35, 35, 38, 32, 24, 26, 23, 33, 23, 20, 21),
    *(17, 19, 17, 8, 7, 8, 8, 3, 1, 4, 3, 2, 2, 3, 1, 1, 1),
)


def generated(count: int, seed: int = 1) -> list[str]:
    """Return different texts, the same for the same arguments."""
    chance = random.Random(seed)
    words = [word for word in _OUR_SENTENCES.read_text(encoding="utf-8").split() if word.isascii() and len(word) < 15]
    lengths = range(_SHORTEST, _SHORTEST + len(_SENTENCES_BY_WORDS))
    texts: dict[str, None] = {}
    while len(texts) < count:
        [length] = chance.choices(lengths, _SENTENCES_BY_WORDS)
        start = chance.randrange(len(words) - length)
        texts[" ".join(words[start : start + length])] = None
    return list(texts)


def read(file: Path) -> list[str]:
    """Read one text per line, after a tab if there is one."""
    return [line.rpartition("\t")[2] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]

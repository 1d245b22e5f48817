"""Owns the tokenising of texts for the onnx engine, and how many tokens suit a run of it; knows no runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tokenizers import Tokenizer

from inference.engines.base import Encoded, ModelError

RUN_TOKENS: Final = 128
"""Padded tokens in one run: more do not fit the caches of a core and score no faster."""


def tokenizer_for(file: Path, max_tokens: int) -> Tokenizer:
    """A tokenizer that cuts at `max_tokens` and doesn't pad; raises ModelError."""
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise ModelError(f"{file} is not a tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def encoded_by(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Encoded]:
    encodings = tokenizer.encode_batch_fast(list(texts))
    return [Encoded(tuple(each.ids), truncated=bool(each.overflowing)) for each in encodings]

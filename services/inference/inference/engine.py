"""Owns the port that every engine stands behind, with its values and errors; knows no runtime, no HTTP and no files."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class ModelError(Exception):
    """A model cannot be served; the message names the cause and the cure."""


class ModelMissing(ModelError):
    """The folder, or a file in it, is not there."""


class ModelMalformed(ModelError):
    """A file is there and cannot be understood."""


class ModelTampered(ModelError):
    """A file's SHA-256 is not the recorded one."""


class ModelDrift(ModelError):
    """This machine scores the reference sentences differently from the machine that made the model."""


class ModelChanged(ModelError):
    """Another model lies where the one lay that this process serves: only a new process may serve that."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a served model is, as its users see it: `labels[i]` names the i-th probability."""

    name: str
    revision: str
    labels: tuple[str, ...]
    max_tokens: int
    engine: str
    device: str
    license: str = "unknown"
    training_data: tuple[str, ...] = ()
    known_weaknesses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as token ids, special tokens included; `truncated` when the text held more than the model takes."""

    ids: tuple[int, ...]
    truncated: bool = False

    @property
    def tokens(self) -> int:
        return len(self.ids)


class Engine(Protocol):
    """Scores texts in two steps, so that tokens are counted once, before a batch is made, and used again."""

    @property
    def card(self) -> ModelCard: ...

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise; callable from any thread."""
        ...

    def score(self, batch: Sequence[Encoded]) -> list[tuple[float, ...]]:
        """One probability per label for each text, in order, whatever the neighbours in the batch.

        Callable from one thread at a time: each worker has its own engine.
        """
        ...

    def close(self) -> None:
        """Free the model's memory; the engine scores nothing afterwards, but still reads texts."""
        ...


def softmax(logits: Sequence[float]) -> tuple[float, ...]:
    """Probabilities in [0, 1] that add up to 1."""
    peak = max(logits)
    exponentials = [math.exp(logit - peak) for logit in logits]
    total = math.fsum(exponentials)
    return tuple(value / total for value in exponentials)

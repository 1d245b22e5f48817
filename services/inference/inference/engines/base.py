"""Owns the ports that every engine stands behind, with their values and errors; knows no runtime, no HTTP, no files."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol


class ModelError(Exception):
    """A model cannot be served. The message names the cause and the cure."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a served model is, as its users see it: `labels[i]` names the i-th probability.

    Where `activation` is sigmoid each label has a probability of its own: they need not add up to 1.
    """

    name: str
    revision: str
    labels: tuple[str, ...]
    max_tokens: int
    engine: str
    device: str
    license: str = "unknown"
    training_data: tuple[str, ...] = ()
    known_weaknesses: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid"] = "softmax"


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as token ids, special tokens included; `truncated` when the text held more than the model takes."""

    ids: tuple[int, ...]
    truncated: bool = False

    @property
    def tokens(self) -> int:
        return len(self.ids)


class Row(NamedTuple):
    """What an engine says of one text: a probability per label, and how much of the text it read."""

    scores: tuple[float, ...]
    tokens: int
    truncated: bool = False


class Answer(NamedTuple):
    """One row per text, in order, and the seconds that reading the texts took."""

    rows: list[Row]
    tokenize_s: float


class Engine(Protocol):
    """Scores texts in two steps: one engine reads on one core while it computes on another."""

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
        """Free the model's memory; the engine scores nothing afterwards."""
        ...


class EngineClient(Protocol):
    """An engine at work where it does not hold up the event loop: in a process of its own, or in threads."""

    exited: asyncio.Event
    """Set once the engine has ended by itself: from then on it scores nothing."""

    @property
    def card(self) -> ModelCard: ...

    async def score(self, texts: Sequence[str]) -> Answer:
        """Read and score. Raises what the engine raises; called while another call is on its way, it takes turns."""
        ...

    async def close(self) -> None:
        """Free what the engine holds."""
        ...


def answer(engine: Engine, texts: Sequence[str]) -> Answer:
    """Both steps, one after the other."""
    started_s = time.perf_counter()
    read = engine.encode(texts)
    tokenize_s = time.perf_counter() - started_s
    return Answer(rows_of(engine.score(read), read), tokenize_s)


def rows_of(scores: Sequence[tuple[float, ...]], read: Sequence[Encoded]) -> list[Row]:
    return [Row(row, text.tokens, text.truncated) for row, text in zip(scores, read, strict=True)]


def sigmoid(logits: Sequence[float]) -> tuple[float, ...]:
    """Independent probabilities in [0, 1]."""
    return tuple(0.5 * (1.0 + math.tanh(0.5 * logit)) for logit in logits)


def softmax(logits: Sequence[float]) -> tuple[float, ...]:
    """Probabilities in [0, 1] that add up to 1."""
    peak = max(logits)
    exponentials = [math.exp(logit - peak) for logit in logits]
    total = math.fsum(exponentials)
    return tuple(value / total for value in exponentials)

"""The interface of engines and of their clients, with its values and its error."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

RUN_TOKENS: Final = 128
"""Padded tokens in one run on a CPU: more exceed a core's caches and score no faster."""


class ModelError(Exception):
    """A model cannot be served. The message names the cause and the cure."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A served model as users see it: `labels[i]` names the i-th probability.

    With `activation` sigmoid the labels are independent, so their probabilities do not add up to 1.
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
    """One text as token ids, special tokens included."""

    ids: tuple[int, ...]
    truncated: bool = False

    @property
    def tokens(self) -> int:
        return len(self.ids)


class Row(NamedTuple):
    """A probability per label, and the number of tokens that were scored."""

    scores: tuple[float, ...]
    tokens: int
    truncated: bool = False


class Engine(Protocol):
    """Scores texts in two steps, so that one batch is tokenised while another is scored."""

    @property
    def card(self) -> ModelCard: ...

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        """Tokenise; callable from any thread."""
        ...

    def score(self, batch: Sequence[Encoded]) -> list[tuple[float, ...]]:
        """Return one probability per label for each text, in order, independent of the other texts.

        Callable from one thread at a time.
        """
        ...

    def close(self) -> None:
        """Free the model's memory."""
        ...


class EngineClient(Protocol):
    """An engine in another process or in threads, so that it does not block the event loop."""

    exited: asyncio.Event
    """Set once the engine can score nothing any longer."""

    @property
    def card(self) -> ModelCard: ...

    async def score(self, texts: Sequence[str]) -> list[Row]:
        """Return one row per text, in order. Raises what the engine raises. Concurrent calls are scored in order."""
        ...

    async def close(self) -> None:
        """Free the engine's resources."""
        ...


@dataclass(frozen=True, slots=True)
class Supervision:
    """When an engine is replaced and when its worker has failed.

    A worker fails after `attempts` new engines in a row that could not start or died before they scored a batch. The
    pause before each doubles from `backoff_s`. A worker busy with one batch for `stuck_after_s` is not ready; after
    `lost_after_s` only a new process helps.
    """

    backoff_s: float = 0.1
    attempts: int = 8
    stuck_after_s: float = 10.0
    lost_after_s: float = 180.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """How to create an engine, how many suit this machine, and how many tokens suit one batch.

    With a `pipeline_depth` of two, an engine has its next batch before it has finished one.
    """

    create: Callable[[], Awaitable[EngineClient]]
    workers: int
    max_batch_tokens: int
    pipeline_depth: int = 1
    supervision: Supervision = field(default_factory=Supervision)


def rows_of(scores: Sequence[tuple[float, ...]], encoded: Sequence[Encoded]) -> list[Row]:
    return [Row(row, text.tokens, text.truncated) for row, text in zip(scores, encoded, strict=True)]


def sigmoid(logits: Sequence[float]) -> tuple[float, ...]:
    """Independent probabilities in [0, 1]."""
    return tuple(0.5 * (1.0 + math.tanh(0.5 * logit)) for logit in logits)


def softmax(logits: Sequence[float]) -> tuple[float, ...]:
    """Probabilities in [0, 1] that add up to 1."""
    peak = max(logits)
    exponentials = [math.exp(logit - peak) for logit in logits]
    total = math.fsum(exponentials)
    return tuple(value / total for value in exponentials)

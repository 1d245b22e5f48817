"""Records one event per answered text before it is answered, and counters of refusals."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import structlog
from pydantic import ValidationError

from common.contracts.events import CounterEvent, PredictionEvent
from common.http.context import uuid7
from common.journal.journal import JournalFull
from inference.batching.jobs import ScoringFailed
from inference.engines.base import ModelCard, ModelError
from inference.prediction.predictor import Answer

log = structlog.get_logger()

Record: TypeAlias = Callable[[Sequence[PredictionEvent | CounterEvent]], None]
Refused: TypeAlias = Literal["unavailable", "timeout"]

_FLUSH_S: Final = 1.0
_NUL_STAND_IN: Final = "\N{SYMBOL FOR NULL}"  # PostgreSQL's text can't hold NUL


@dataclass(frozen=True, slots=True)
class RequestMetadata:
    """A request's client and route, and its start and deadline on the monotonic clock."""

    route: str
    request_id: str
    trace_id: str | None
    client: str | None
    started_s: float
    deadline_s: float


def require_recordable(card: ModelCard) -> None:
    """Raise ModelError if an event cannot hold the model's name or labels, or if two labels have the same name."""
    if twice := [label for label, times in Counter(card.labels).items() if times > 1]:
        raise ModelError(f"two labels of {card.name} have the same name: {', '.join(map(repr, twice))}")
    for label in card.labels:
        try:
            PredictionEvent(
                id=uuid7(),
                at_us=0,
                route="",
                outcome="ok",
                request_id="",
                model=card.name,
                revision=card.revision,
                label=label,
                latency_us=0,
            )
        except ValidationError as error:
            [wrong, *_] = error.errors()
            where = f"{wrong['loc'][0]}: {wrong['msg']}: {wrong['input']!r}"
            raise ModelError(f"events cannot name this model: {where}") from error


class PredictionRecorder:
    """Writes events through `record`. Refusals are counted and written once a second by `run`."""

    def __init__(self, record: Record, card: ModelCard, *, store_text: bool, wall_us: Callable[[], int]) -> None:
        self._record = record
        self._card = card
        self._store_text = store_text
        self._wall_us = wall_us
        self._refused: Counter[tuple[str, Refused]] = Counter()

    def answered(
        self, caller: RequestMetadata, texts: Sequence[str], answers: Sequence[Answer], latency_s: float
    ) -> None:
        """Record all answers of one request in one write. After JournalFull nothing may be answered."""
        at_us = self._wall_us()
        self._record(
            [
                self._event(caller, text, answer, at_us, _us(latency_s))
                for text, answer in zip(texts, answers, strict=True)
            ]
        )

    def refused(self, route: str, outcome: Refused, texts: int) -> None:
        """Count `texts` texts that were not answered."""
        self._refused[route, outcome] += texts

    async def run(self) -> None:
        """Write the counted refusals every second, and once more when cancelled."""
        try:
            while True:
                await asyncio.sleep(_FLUSH_S)
                self.flush()
        finally:
            self.flush()

    def flush(self) -> None:
        """Write the counted refusals. While the journal is full they stay counted."""
        at_us = self._wall_us()
        events = [
            CounterEvent(id=uuid7(), at_us=at_us, route=route, outcome=outcome, n=n)
            for (route, outcome), n in self._refused.items()
        ]
        if events:
            try:
                self._record(events)
            except JournalFull:
                return
            self._refused.clear()

    def _event(
        self, caller: RequestMetadata, text: str, answer: Answer, at_us: int, latency_us: int
    ) -> PredictionEvent:
        scored = None if isinstance(answer, ScoringFailed) else answer
        return PredictionEvent(
            id=uuid7(),
            at_us=at_us,
            route=caller.route,
            outcome="ok" if scored else "error",
            request_id=caller.request_id,
            trace_id=caller.trace_id,
            model=self._card.name,
            revision=self._card.revision,
            label=scored.label if scored else None,
            score=scored.score if scored else None,
            margin=scored.margin if scored else None,
            cached=scored.cached if scored else False,
            truncated=scored.truncated if scored else False,
            latency_us=latency_us,
            queue_us=_us(scored.queue_s) if scored else 0,
            compute_us=_us(scored.compute_s) if scored else 0,
            tokens=scored.tokens if scored else 0,
            characters=len(text),
            client=caller.client,
            text=text.replace("\0", _NUL_STAND_IN) if self._store_text else None,
        )


def _us(seconds: float) -> int:
    return max(0, round(seconds * 1e6))

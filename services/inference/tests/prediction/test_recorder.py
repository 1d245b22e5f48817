"""Events of answers and refusals."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from common.contracts.events import CounterEvent, PredictionEvent
from common.journal.journal import JournalFull
from inference.batching.jobs import ScoringFailed
from inference.engines.base import ModelCard, ModelError
from inference.prediction.predictor import Prediction
from inference.prediction.recorder import PredictionRecorder, RequestMetadata, require_recordable

CARD: Final = ModelCard("fake", "r1", ("NEGATIVE", "POSITIVE"), 64, "fake", "cpu")
CALLER: Final = RequestMetadata("/predict", "request-1", "ab" * 16, "hmac", 1.0, 11.0)
PREDICTION: Final = Prediction("POSITIVE", 0.75, 0.5, {}, 4, True, queue_s=0.001, compute_s=0.005)


class Journal:
    """Stores events, or is full."""

    def __init__(self) -> None:
        self.writes: list[list[Any]] = []
        self.is_full = False

    def record(self, events: Sequence[PredictionEvent | CounterEvent]) -> None:
        if self.is_full:
            raise JournalFull
        self.writes.append(list(events))


def records(journal: Journal, *, store_text: bool = False) -> PredictionRecorder:
    return PredictionRecorder(journal.record, CARD, store_text=store_text, wall_us=lambda: 1_700_000_000_000_000)


def test_answers_of_one_request__are_one_write() -> None:
    journal = Journal()
    records(journal).answered(CALLER, ["good", "poison"], [PREDICTION, ScoringFailed("ValueError")], 0.0071)
    [[scored, failed]] = journal.writes
    assert scored.model_dump(exclude={"id"}, exclude_defaults=True) == {
        "at_us": 1_700_000_000_000_000,
        "route": "/predict",
        "outcome": "ok",
        "request_id": "request-1",
        "trace_id": "ab" * 16,
        "model": "fake",
        "revision": "r1",
        "label": "POSITIVE",
        "score": 0.75,
        "margin": 0.5,
        "truncated": True,
        "latency_us": 7100,
        "queue_us": 1000,
        "compute_us": 5000,
        "tokens": 4,
        "characters": 4,
        "client": "hmac",
    }
    assert (failed.outcome, failed.label, failed.characters) == ("error", None, 6)
    assert scored.id != failed.id


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": ("GOOD", "GOOD", "BAD")}, "two labels of fake have the same name: 'GOOD'"),
        ({"labels": ("a" * 65, "b")}, "events cannot name this model: label: "),
        ({"revision": "r" * 65}, "events cannot name this model: revision: "),
    ],
)
def test_model_that_events_cannot_name__is_refused(changed: dict[str, Any], message: str) -> None:
    require_recordable(CARD)
    with pytest.raises(ModelError, match=message):
        require_recordable(replace(CARD, **changed))


def test_text__is_stored_only_when_enabled_and_without_nul() -> None:
    journal = Journal()
    records(journal).answered(CALLER, ["a\0b"], [PREDICTION], 0.0)
    records(journal, store_text=True).answered(CALLER, ["a\0b"], [PREDICTION], 0.0)
    assert [write[0].text for write in journal.writes] == [None, "a␀b"]


def test_refusals__are_one_event_per_route_and_outcome() -> None:
    journal = Journal()
    recorder = records(journal)
    for texts in (1, 64):
        recorder.refused("/predict/batch", "unavailable", texts)
    recorder.refused("/predict", "timeout", 1)
    recorder.flush()
    recorder.flush()
    [events] = journal.writes
    assert [(e.route, e.outcome, e.n, e.policy) for e in events] == [
        ("/predict/batch", "unavailable", 65, ""),
        ("/predict", "timeout", 1, ""),
    ]


def test_full_journal__refuses_answers_and_keeps_counted_refusals() -> None:
    journal = Journal()
    recorder = records(journal)
    journal.is_full = True
    with pytest.raises(JournalFull):
        recorder.answered(CALLER, ["good"], [PREDICTION], 0.0)
    recorder.refused("/predict", "unavailable", 1)
    recorder.flush()
    recorder.refused("/predict", "unavailable", 2)
    journal.is_full = False
    recorder.flush()
    [[event]] = journal.writes
    assert (event.kind, event.n) == ("counter", 3)


async def test_counted_refusals__are_written_on_shutdown() -> None:
    journal = Journal()
    recorder = records(journal)
    task = asyncio.create_task(recorder.run())
    await asyncio.sleep(0)
    recorder.refused("/predict", "unavailable", 1)
    task.cancel()
    await asyncio.wait([task])
    assert [event.n for event in journal.writes[0]] == [1]

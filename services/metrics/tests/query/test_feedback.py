"""True labels count once, whenever they are sent, and accuracy equals a brute-force count."""

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.contracts.aggregates import AggregateRequest, Filters
from common.contracts.feedback import FeedbackItem
from common.contracts.thresholds import ThresholdRule
from common.http.context import uuid7
from metrics.alerting.rule_store import ThresholdStore
from metrics.alerting.rules import Thresholds
from metrics.ingest.writer import EventWriter
from metrics.query.aggregate import Aggregates
from metrics.query.feedback import FeedbackStore
from metrics.query.rollups import Rollups
from metrics.ranges import as_time
from metrics.storage.database import Database

AT_US = 1_790_000_000_000_000


@pytest.fixture
def store(database: Database) -> FeedbackStore:
    return FeedbackStore(database)


@pytest.fixture
def aggregates(database: Database, clock: Any) -> Aggregates:
    async def lag_s() -> float:
        return 0.0

    return Aggregates(Rollups(database), lag_s, now=clock)


def id_at(at_us: int) -> str:
    return uuid7(lambda: at_us * 1_000)


def item(label: str, **name: Any) -> FeedbackItem:
    return FeedbackItem(label=label, **name)


async def statuses(store: FeedbackStore, *items: FeedbackItem) -> list[str]:
    return [result.status for result in await store.record(items)]


async def test_feedback_sent_twice__counts_once_and_the_last_label_counts(
    store: FeedbackStore, database: Database, prediction: Callable[..., Any], rows: Callable[..., Any]
) -> None:
    event = prediction(id=id_at(AT_US))
    await EventWriter(database).write([event])
    negative, positive = (item(label, prediction_id=event.id) for label in ("NEGATIVE", "POSITIVE"))
    assert await statuses(store, negative) == ["recorded"]
    assert await statuses(store, negative) == ["unchanged"]
    assert await statuses(store, positive, positive, negative) == ["replaced", "unchanged", "replaced"]
    assert await rows("SELECT predicted, actual FROM feedback") == [("POSITIVE", "NEGATIVE")]


async def test_feedback_before_its_prediction__is_not_found_until_it_is_stored(
    store: FeedbackStore, database: Database, prediction: Callable[..., Any]
) -> None:
    event = prediction(id=id_at(AT_US))
    early = item("POSITIVE", prediction_id=event.id)
    assert await statuses(store, early, item("POSITIVE", request_id=id_at(AT_US))) == ["not_found", "not_found"]
    await EventWriter(database).write([event])
    assert await statuses(store, early) == ["recorded"]


@pytest.mark.parametrize("id", ["00000000-0000-7000-8000-000000000000", "ffffffff-ffff-7fff-bfff-ffffffffffff"])
async def test_feedback_with_a_made_up_time__is_not_found(store: FeedbackStore, id: str) -> None:
    assert await statuses(store, item("POSITIVE", prediction_id=id)) == ["not_found"]


async def test_feedback_for_an_expired_or_failed_prediction__has_a_clear_answer(
    store: FeedbackStore, database: Database, prediction: Callable[..., Any], rows: Callable[..., Any]
) -> None:
    failed = prediction(id=id_at(AT_US), outcome="error", label=None)
    await EventWriter(database).write([failed])
    await rows("INSERT INTO retention VALUES ('prediction', $1)", datetime.fromtimestamp(AT_US / 1e6, UTC))
    expired = id_at(AT_US - 3_600_000_000)
    sent = item("POSITIVE", prediction_id=expired), item("POSITIVE", prediction_id=failed.id)
    assert await statuses(store, *sent) == ["expired", "not_answered"]


async def test_feedback_by_request__finds_the_text_by_its_place_in_the_batch(
    store: FeedbackStore, database: Database, prediction: Callable[..., Any]
) -> None:
    request_id = id_at(AT_US - 2_000_000)
    batch = [prediction(id=id_at(AT_US + n), request_id=request_id) for n in range(3)]
    await EventWriter(database).write(reversed(batch))
    found = await store.record([item("POSITIVE", request_id=request_id, index=n) for n in (2, 0, 3)])
    assert [result.prediction_id for result in found] == [batch[2].id, batch[0].id, None]


@pytest.mark.parametrize(
    "fields",
    [{}, {"prediction_id": id_at(0), "request_id": id_at(0)}, {"request_id": "6f1f6d5e-1111-4111-8111-111111111111"}],
)
def test_feedback__without_one_assigned_id__is_rejected(fields: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"either|UUIDv7"):
        item("POSITIVE", **fields)


async def test_feedback_from_many_writers__neither_deadlocks_nor_counts_twice(
    store: FeedbackStore, database: Database, prediction: Callable[..., Any], rows: Callable[..., Any]
) -> None:
    events = [prediction(id=id_at(AT_US + n)) for n in range(40)]
    await EventWriter(database).write(events)
    items = [item("POSITIVE", prediction_id=event.id) for event in events]
    found = await asyncio.gather(*(statuses(store, *items[::step]) for step in (1, -1, 1, -1)))
    assert Counter(status for one in found for status in one) == {"recorded": 40, "unchanged": 120}
    assert await rows("SELECT count(*)::int FROM feedback") == [(40,)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 599), st.sampled_from("PN"), st.sampled_from(["P", "N", None]), st.sampled_from("ab")),
        max_size=30,
    ),
    st.sampled_from([None, "a"]),
    st.integers(0, 500),
)
async def test_accuracy__equals_brute_force(
    store: FeedbackStore,
    aggregates: Aggregates,
    database: Database,
    clock: Any,
    prediction: Callable[..., Any],
    rows: Callable[..., Any],
    some: list[tuple[int, str, str | None, str]],
    model: str | None,
    start_s: int,
) -> None:
    await rows("TRUNCATE prediction, counter_event, rollup, feedback")
    clock.now_s = AT_US / 1e6 + 600
    events = [
        (prediction(id=id_at(AT_US + s * 1_000_000), at_us=AT_US + s * 1_000_000, label=label, model=m), actual)
        for s, label, actual, m in some
    ]
    await EventWriter(database).write(event for event, _ in events)
    sent = [item(actual, prediction_id=event.id) for event, actual in events if actual]
    await store.record(sent[::-1])
    start = as_time(AT_US) + timedelta(seconds=start_s)
    request = AggregateRequest(start=start, end=start + timedelta(seconds=99), filters=Filters(model=model))
    answer = await aggregates.answer(request)
    inside = [
        (event, actual)
        for event, actual in events
        if answer.range.start <= as_time(event.at_us) < answer.range.end and model in (None, event.model)
    ]
    labelled = [(event.label, actual) for event, actual in inside if actual]
    truth = answer.feedback
    assert truth is not None
    assert (truth.n, truth.correct) == (len(labelled), sum(label == actual for label, actual in labelled))
    assert truth.accuracy == (truth.correct / truth.n if labelled else None)
    assert truth.coverage == (len(labelled) / len(inside) if inside else None)
    assert {(one.predicted, one.actual): one.count for one in truth.confusion} == Counter(labelled)


async def test_rule_on_accuracy__is_evaluated_over_true_labels(
    store: FeedbackStore, aggregates: Aggregates, database: Database, clock: Any, prediction: Callable[..., Any]
) -> None:
    rule = ThresholdRule(name="truth", metric="accuracy", below=0.8, min_samples=4)
    await ThresholdStore(database).replace(Thresholds(rules=[rule]), expected=None)
    now_us = int(clock() * 1_000_000)
    events = [prediction(id=id_at(now_us - 1 - n), at_us=now_us - 1 - n) for n in range(8)]
    await EventWriter(database).write(events)
    await store.record([item("POSITIVE", prediction_id=event.id) for event in events[:3]])
    [state] = (await aggregates.answer(AggregateRequest(window="5m"))).thresholds
    assert (state.current, state.breached) == (1.0, None)
    await store.record([item("NEGATIVE", prediction_id=events[3].id)])
    [state] = (await aggregates.answer(AggregateRequest(window="5m"))).thresholds
    assert (state.current, state.breached) == (0.75, True)

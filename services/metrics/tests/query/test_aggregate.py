"""Aggregates over any range equal brute force over the events in it."""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.contracts.aggregates import SKETCH_RELATIVE_ERROR, AggregateRequest, Bucket, Filters
from common.contracts.events import CounterEvent
from metrics.ingest.writer import EventWriter
from metrics.query.accumulator import GroupKey, Row
from metrics.query.aggregate import ROWS_AT_ONCE, Aggregates
from metrics.query.rollups import Rollups
from metrics.ranges import as_time, as_us
from metrics.storage.database import Database

AT_US = 1_790_000_000_000_000
SECOND_US = 1_000_000
SPAN_US = 60 * 3_600 * SECOND_US  # so that some ranges hold a whole day


@pytest.fixture
def aggregates(database: Database, clock: Callable[[], float]) -> Aggregates:
    async def lag_s() -> float:
        return 1.5

    return Aggregates(Rollups(database), lag_s, now=clock)


def percentile_disc(values: list[int], share: float) -> float:
    return sorted(values)[math.ceil(share * len(values)) - 1] / 1000


def brute_force(events: Any) -> dict[str, Any]:
    """A summary, by the definition of each field."""
    outcomes: Counter[str] = Counter()
    for event in events:
        outcomes[event.outcome] += event.n if isinstance(event, CounterEvent) else 1
    answered = [event for event in events if event.outcome == "ok"]
    requests, limited = outcomes.total(), outcomes["limited"]
    errors = {k: n for k, n in outcomes.items() if k not in ("ok", "limited")}
    scores = [event.score for event in answered]
    labels = Counter(event.label for event in answered)
    return {
        "requests": requests,
        "predictions": len(answered),
        "rate_limited": limited,
        "errors": errors,
        "error_rate": sum(errors.values()) / (requests - limited) if requests > limited else None,
        "limited_rate": limited / requests if requests else None,
        "labels": {label: n / len(answered) for label, n in labels.items()},
        "confidence": pytest.approx(sum(scores) / len(scores), abs=1e-6) if scores else None,
        "histogram": [sum(min(int(score * 10), 9) == tenth for score in scores) for tenth in range(10)],
        "max": max(event.latency_us for event in answered) / 1000 if answered else None,
        "cached_share": sum(event.cached for event in answered) / len(answered) if answered else None,
        "means": means(answered),
        "percentiles": latency_percentiles(answered),
    }


def means(answered: Any) -> list[Any]:
    computed = [event for event in answered if not event.cached]
    parts = [
        [event.latency_us / 1000 for event in answered],
        [event.latency_us / 1000 for event in computed],
        [event.queue_us / 1000 for event in computed],
        [event.compute_us / 1000 for event in computed],
        [event.tokens for event in computed],
    ]
    return [pytest.approx(sum(part) / len(part)) if part else None for part in parts]


def latency_percentiles(answered: Any) -> list[Any]:
    parts = [
        ([event.latency_us for event in answered], (0.5, 0.9, 0.95, 0.99)),
        ([event.latency_us for event in answered if not event.cached], (0.5, 0.95)),
        ([event.queue_us for event in answered if not event.cached], (0.5, 0.95)),
    ]
    return [percentile_disc(values, share) if values else None for values, shares in parts for share in shares]


def flat(summary: Any) -> dict[str, Any]:
    found, computed, queue = summary.latency_ms, summary.computed_latency_ms, summary.queue_ms
    return {
        "requests": summary.requests,
        "predictions": summary.predictions,
        "rate_limited": summary.rate_limited,
        "errors": summary.errors,
        "error_rate": summary.error_rate,
        "limited_rate": summary.limited_rate,
        "labels": {share.label: share.share for share in summary.labels},
        "confidence": summary.confidence.mean,
        "histogram": summary.confidence.histogram,
        "max": found.max,
        "cached_share": summary.cached_share,
        "means": [found.mean, computed.mean, queue.mean, summary.compute_ms.mean, summary.tokens.mean],
        "percentiles": [found.p50, found.p90, found.p95, found.p99, computed.p50, computed.p95, queue.p50, queue.p95],
    }


events_of = st.lists(
    st.tuples(
        st.integers(0, SPAN_US) | st.integers(0, 300 * SECOND_US),
        st.sampled_from(["m1", "m2"]),
        st.sampled_from(["ok", "ok", "error", "limited"]),
        st.sampled_from(["POSITIVE", "NEGATIVE"]),
        st.floats(0, 1, width=32),
        st.integers(3, 10_000_000),
    ),
    min_size=1,
    max_size=60,
)
edges = st.integers(0, SPAN_US) | st.integers(0, 400 * SECOND_US)
per_example = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@per_example
@given(
    events_of,
    edges,
    edges,
    st.sampled_from([None, "m1"]),
    st.sampled_from([None, "1h", "6h", "1d"]),
    st.booleans(),
)
async def test_any_range__equals_brute_force_over_its_events(
    aggregates: Aggregates,
    clock: Any,
    database: Database,
    rows: Callable[..., Any],
    prediction: Callable[..., Any],
    counter: Callable[..., Any],
    some: list[tuple[Any, ...]],
    one: int,
    other: int,
    model: str | None,
    bucket: Bucket | None,
    is_recent: bool,
) -> None:
    if is_recent:  # ten-second rollups exist
        one, other, bucket = one % (400 * SECOND_US), other % (400 * SECOND_US), "10s"
    await rows("TRUNCATE prediction, counter_event, rollup")
    events = [
        counter(at_us=AT_US + at, n=latency_us % 9 + 1)
        if outcome == "limited"
        else prediction(
            at_us=AT_US + at,
            model=m,
            outcome=outcome,
            label=label,
            score=score,
            latency_us=latency_us,
            cached=latency_us % 2 == 0,
            queue_us=latency_us // 3,
            compute_us=latency_us // 2,
            tokens=latency_us % 90,
        )
        for at, m, outcome, label, score, latency_us in some
    ]
    await EventWriter(database).write(events)
    clock.now_s = AT_US / SECOND_US + (500 if is_recent else SPAN_US / SECOND_US + 3_600)
    width_us = (10 if is_recent else 60) * SECOND_US
    request = AggregateRequest(
        start=as_time(AT_US + min(one, other)),
        end=as_time(AT_US + max(one, other) + 1),
        filters=Filters(model=model),
        bucket=bucket,
        group_by=["model", "label"],
    )
    answer = await aggregates.answer(request)

    def within(first: int, last: int) -> list[Any]:
        return [e for e in events if first <= e.at_us < last and model in (None, getattr(e, "model", ""))]

    start, end = as_us(answer.range.start), as_us(answer.range.end)
    assert 0 <= AT_US + min(one, other) - start < width_us
    assert 0 < end - (AT_US + max(one, other)) <= width_us
    wanted = within(start, end)
    assert_equal(flat(answer), brute_force(wanted))
    assert_equal(flat(answer.previous), brute_force(within(2 * start - end, start)))
    assert sum(group.requests for group in answer.groups) == answer.requests
    assert sum(point.requests for point in answer.series) == answer.requests
    assert sum(point.errors for point in answer.series) == sum(answer.errors.values())
    for group in answer.groups:
        key = tuple(group.key.values())
        mine = [e for e in wanted if key == (getattr(e, "model", ""), getattr(e, "label", ""))]
        assert group.latency_ms.n == sum(e.outcome == "ok" for e in mine)


def assert_equal(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Percentiles are estimates, everything else is exact."""
    for estimate, exact in zip(found.pop("percentiles"), expected.pop("percentiles"), strict=True):
        assert (estimate is None) == (exact is None)
        assert estimate is None or abs(estimate - exact) <= exact * (SKETCH_RELATIVE_ERROR + 1e-9)
    assert found == expected


async def test_series__has_a_point_for_every_bucket(
    aggregates: Aggregates, clock: Any, database: Database, prediction: Callable[..., Any]
) -> None:
    start = AT_US // (60 * SECOND_US) * (60 * SECOND_US) + 30 * SECOND_US
    await EventWriter(database).write(prediction(at_us=start + n * 45 * SECOND_US) for n in range(4))
    clock.now_s = start / SECOND_US + 215
    request = AggregateRequest(start=as_time(start), end=as_time(start + 210 * SECOND_US), bucket="1m")
    series = (await aggregates.answer(request)).series
    assert [(point.at, point.predictions) for point in series] == [
        (as_time(start - 30 * SECOND_US + n * 60 * SECOND_US), predictions)
        for n, predictions in enumerate([1, 1, 2, 0])
    ]
    assert [point.p50 is None for point in series] == [False, False, False, True]


async def test_thresholds__are_judged_up_to_now_whatever_was_asked(
    aggregates: Aggregates, database: Database, clock: Callable[[], float], prediction: Callable[..., Any]
) -> None:
    await EventWriter(database).write(
        prediction(outcome="error", at_us=AT_US - n * SECOND_US, label=None) for n in range(1, 31)
    )
    long_ago = AggregateRequest(
        start=as_time(AT_US - 10 * SPAN_US), end=as_time(AT_US - 9 * SPAN_US), filters=Filters(model="other")
    )
    answer = await aggregates.answer(long_ago)
    assert answer.requests == 0
    states = {state.rule.name: (state.current, state.breached) for state in answer.thresholds}
    assert states["error-rate"] == (1.0, True)
    assert states["latency-p95"] == (None, None)


async def test_lag__is_passed_on(aggregates: Aggregates) -> None:
    assert (await aggregates.answer(AggregateRequest(window="5m"))).lag_s == 1.5


class NoStore:
    """A snapshot that yields ten thousand rows without waiting."""

    connection: Any

    def __init__(self) -> None:
        self.connection = self

    async def fetchrow(self, _sql: str) -> None:
        return None

    async def fetch(self, *_asked: Any) -> tuple[()]:
        return ()

    async def rows(self, *_asked: Any) -> Iterator[Row]:
        return (
            Row(0, GroupKey("m", "/predict", "ok", "P"), "model", 9, 1, 9, 0, 0, 0, 0, 0, [1 << 48, 0, 0, 0, 0, 0])
            for _ in range(10_000)
        )

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator["NoStore"]:
        yield self


async def test_answer_of_many_rows__lets_others_have_their_turn(clock: Callable[[], float]) -> None:
    async def lag_s() -> float:
        return 0.0

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    try:
        aggregates = Aggregates(cast(Rollups, NoStore()), lag_s, now=clock)
        answer = await aggregates.answer(AggregateRequest(window="1h"))
    finally:
        beside.cancel()
    assert answer.predictions == 10_000
    assert turns >= 10_000 / ROWS_AT_ONCE

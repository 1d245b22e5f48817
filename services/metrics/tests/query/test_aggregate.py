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
def aggregates(database: Database, clock: Callable[[], float]) -> Callable[..., Aggregates]:
    """Call it with how many predictions may be read singly."""

    async def lag_s() -> float:
        return 1.5

    return lambda exact_max=10_000: Aggregates(Rollups(database), lag_s, exact_max=exact_max, now=clock)


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
        "latency": latency(answered),
    }


def latency(answered: Any) -> list[Any]:
    values = [event.latency_us for event in answered]
    if not values:
        return [None] * 6
    return [
        pytest.approx(sum(values) / len(values) / 1000),
        max(values) / 1000,
        *(percentile_disc(values, share) for share in (0.5, 0.9, 0.95, 0.99)),
    ]


def flat(summary: Any) -> dict[str, Any]:
    found = summary.latency_ms
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
        "latency": [found.mean, found.max, found.p50, found.p90, found.p95, found.p99],
    }


events_of = st.lists(
    st.tuples(
        st.integers(0, SPAN_US) | st.integers(0, 300 * SECOND_US),
        st.sampled_from(["m1", "m2"]),
        st.sampled_from(["ok", "ok", "error", "limited"]),
        st.sampled_from(["POSITIVE", "NEGATIVE"]),
        st.floats(0, 1, width=32),
        st.integers(1, 10_000_000),
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
    st.sampled_from(["false", "true", "extract(second FROM at) < 30"]),
)
async def test_any_ragged_range__equals_brute_force_over_its_events(
    aggregates: Callable[..., Any],
    database: Database,
    rows: Callable[..., Any],
    prediction: Callable[..., Any],
    counter: Callable[..., Any],
    some: list[tuple[Any, ...]],
    one: int,
    other: int,
    model: str | None,
    bucket: Bucket | None,
    is_exact: bool,
    lost: str,
) -> None:
    await rows("TRUNCATE prediction, counter_event, rollup")
    events = [
        counter(at_us=AT_US + at, n=latency_us % 9 + 1)
        if outcome == "limited"
        else prediction(at_us=AT_US + at, model=m, outcome=outcome, label=label, score=score, latency_us=latency_us)
        for at, m, outcome, label, score, latency_us in some
    ]
    await EventWriter(database).write(events)
    await rows(f"DELETE FROM rollup WHERE width_s = 5 AND {lost}")
    start, end = AT_US + min(one, other), AT_US + max(one, other) + 1
    request = AggregateRequest(
        start=as_time(start), end=as_time(end), filters=Filters(model=model), bucket=bucket, group_by=["model", "label"]
    )
    answer = await aggregates(10_000 if is_exact else 0).answer(request)

    def within(first: int, last: int) -> list[Any]:
        return [e for e in events if first <= e.at_us < last and model in (None, getattr(e, "model", ""))]

    wanted = within(start, end)
    assert (as_us(answer.range.start), as_us(answer.range.end)) == (start, end)
    assert_equal(flat(answer), brute_force(wanted), is_exact)
    assert_equal(flat(answer.previous), brute_force(within(2 * start - end, start)), is_exact)
    assert sum(group.requests for group in answer.groups) == answer.requests
    assert sum(point.requests for point in answer.series) == answer.requests
    assert sum(point.errors for point in answer.series) == sum(answer.errors.values())
    for group in answer.groups:
        key = tuple(group.key.values())
        mine = [e for e in wanted if key == (getattr(e, "model", ""), getattr(e, "label", ""))]
        assert group.latency_ms.n == sum(e.outcome == "ok" for e in mine)
    assert answer.latency_ms.method == ("exact" if is_exact or not answer.predictions else "sketch")


def assert_equal(found: dict[str, Any], expected: dict[str, Any], is_exact: bool) -> None:
    if not is_exact:
        for mine, exact in zip(found.pop("latency")[2:], (latency := expected.pop("latency"))[2:], strict=True):
            assert (mine is None) == (exact is None)
            assert mine is None or abs(mine - exact) <= exact * (SKETCH_RELATIVE_ERROR + 1e-9)
        assert len(latency) == 6
    assert found == expected


async def test_series__has_a_point_for_every_bucket_and_starts_before_a_ragged_start(
    aggregates: Callable[..., Any], database: Database, prediction: Callable[..., Any]
) -> None:
    start = AT_US // (60 * SECOND_US) * (60 * SECOND_US) + 30 * SECOND_US
    await EventWriter(database).write(
        prediction(at_us=start + n * 45 * SECOND_US, latency_us=1000 + n) for n in range(4)
    )
    request = AggregateRequest(start=as_time(start), end=as_time(start + 210 * SECOND_US), bucket="1m")
    series = (await aggregates().answer(request)).series
    assert [(point.at, point.predictions) for point in series] == [
        (as_time(start - 30 * SECOND_US + n * 60 * SECOND_US), predictions)
        for n, predictions in enumerate([1, 1, 2, 0])
    ]
    assert [point.p50 for point in series] == [1.0, 1.001, 1.002, None]


async def test_range_older_than_single_events__is_answered_to_the_minute(
    aggregates: Callable[..., Any], database: Database, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    await EventWriter(database).write([prediction(at_us=AT_US)])
    await rows("TRUNCATE prediction")
    for relation, days in (("prediction", 1), ("counter_event", -1)):
        await rows("INSERT INTO retention VALUES ($1, $2)", relation, as_time(AT_US + days * 86_400 * SECOND_US))
    request = AggregateRequest(start=as_time(AT_US + SECOND_US), end=as_time(AT_US + 2 * SECOND_US))
    answer = await aggregates().answer(request)
    assert answer.predictions == 1
    assert answer.range.start.second == answer.range.end.second == 0
    assert answer.latency_ms.method == "sketch"
    assert answer.latency_ms.p50 == pytest.approx(10.0, rel=SKETCH_RELATIVE_ERROR)


async def test_ragged_edge_of_a_recent_range__is_read_from_fine_rollups(
    aggregates: Callable[..., Any], database: Database, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    minute = AT_US // (60 * SECOND_US) * (60 * SECOND_US)
    await EventWriter(database).write(prediction(at_us=minute + second * SECOND_US) for second in (11, 12, 19, 21))
    await rows("DELETE FROM prediction WHERE extract(second FROM at) BETWEEN 15 AND 20")
    request = AggregateRequest(start=as_time(minute + 12 * SECOND_US), end=as_time(minute + 22 * SECOND_US))
    assert (await aggregates(0).answer(request)).predictions == 3


async def test_thresholds__are_judged_up_to_now_whatever_was_asked(
    aggregates: Callable[..., Any], database: Database, clock: Callable[[], float], prediction: Callable[..., Any]
) -> None:
    await EventWriter(database).write(
        prediction(outcome="error", at_us=AT_US - n * SECOND_US, label=None) for n in range(1, 31)
    )
    long_ago = AggregateRequest(
        start=as_time(AT_US - 10 * SPAN_US), end=as_time(AT_US - 9 * SPAN_US), filters=Filters(model="other")
    )
    answer = await aggregates().answer(long_ago)
    assert answer.requests == 0
    states = {state.rule.name: (state.current, state.breached) for state in answer.thresholds}
    assert states["error-rate"] == (1.0, True)
    assert states["latency-p95"] == (None, None)


async def test_percentile_of_a_rule__is_an_estimate_where_that_of_its_window_is_exact(
    aggregates: Callable[..., Any], database: Database, prediction: Callable[..., Any]
) -> None:
    await EventWriter(database).write(
        prediction(at_us=AT_US - SECOND_US, latency_us=n * 1_000) for n in range(401, 501)
    )
    answer = await aggregates().answer(AggregateRequest(window="5m"))
    (state,) = (state for state in answer.thresholds if state.rule.metric == "latency_ms.p95")
    assert (answer.latency_ms.p95, answer.latency_ms.method) == (495.0, "exact")
    assert state.current != 495.0
    assert state.current == pytest.approx(495.0, rel=SKETCH_RELATIVE_ERROR)


async def test_lag__is_passed_on(aggregates: Callable[..., Any]) -> None:
    assert (await aggregates().answer(AggregateRequest(window="5m"))).lag_s == 1.5


class NoStore:
    """A snapshot of ten thousand rows that are there at once."""

    connection: Any

    def __init__(self) -> None:
        self.connection = self

    async def fetchrow(self, _sql: str) -> None:
        return None

    async def raw_from(self) -> int:
        return 0

    async def rows(self, *_asked: Any) -> Iterator[Row]:
        return (Row(0, GroupKey("m", "/predict", "ok", "P"), 9, 1, 1, 9, 0, 0, [1 << 48, 0, 0]) for _ in range(10_000))

    async def answered(self, _few: Any) -> tuple[()]:
        return ()

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
        aggregates = Aggregates(cast(Rollups, NoStore()), lag_s, exact_max=10, now=clock)
        answer = await aggregates.answer(AggregateRequest(window="1h"))
    finally:
        beside.cancel()
    assert answer.predictions == 10_000
    assert turns >= 10_000 / ROWS_AT_ONCE

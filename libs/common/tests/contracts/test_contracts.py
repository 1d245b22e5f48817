"""Wire contracts read back what they wrote, and refuse what no service may send."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.contracts.aggregates import AggregateRequest
from common.contracts.events import EVENT_ADAPTER, CounterEvent, LimitedClient, PredictionEvent
from common.contracts.thresholds import ThresholdRule
from common.contracts.windows import WINDOW_S
from common.http.context import uuid7

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=64)
base: dict[str, Any] = {
    "id": st.builds(uuid7),
    "at_us": st.integers(0, 1 << 53),
    "route": words,
    "outcome": st.sampled_from(["ok", "limited", "invalid", "bad_gateway", "unavailable", "timeout", "error"]),
}
counts = st.integers(0, (1 << 31) - 1)
shares = st.floats(0, 1) | st.none()
predictions = st.builds(
    PredictionEvent,
    **base,
    request_id=words,
    trace_id=st.none() | st.just("a" * 32),
    model=words.filter(bool),
    revision=words,
    label=st.none() | words,
    score=shares,
    margin=shares,
    cached=st.booleans(),
    truncated=st.booleans(),
    latency_us=counts,
    tokens=counts,
    client=st.none() | words,
    text=st.none() | words,
)
sizes = st.integers(1, 1 << 31)
clients = st.lists(st.builds(LimitedClient, words, sizes), max_size=5).map(tuple)
counters = st.builds(CounterEvent, **base, policy=words, n=sizes, clients=st.none() | clients)

RULE = {"name": "latency", "metric": "latency_ms.p95"}
EVENT: dict[str, Any] = {"id": "00000000-0000-7000-8000-000000000000", "at_us": 1, "route": "/predict", "outcome": "ok"}
SCORED = EVENT | {"kind": "prediction", "request_id": "r", "model": "m", "revision": "1", "latency_us": 1}


@given(predictions | counters)
def test_event__reads_back_equal(event: PredictionEvent | CounterEvent) -> None:
    assert EVENT_ADAPTER.validate_json(event.model_dump_json(exclude_none=True)) == event
    assert EVENT_ADAPTER.validate_json(event.model_dump_json()) == event


@pytest.mark.parametrize(
    "event",
    [
        EVENT,
        EVENT | {"kind": "other"},
        EVENT | {"kind": "counter", "n": 0},
        EVENT | {"kind": "counter", "n": 6, "clients": [["c", 1]] * 6},
        EVENT | {"kind": "counter", "n": 1, "clients": [["c", 0]]},
        EVENT | {"kind": "counter", "n": 1, "clients": [["c" * 65, 1]]},
        EVENT | {"kind": "counter", "n": 1, "clients": [["c"]]},
        SCORED | {"id": "00000000-0000-7000-8000-00000000000G"},
        SCORED | {"id": EVENT["id"].upper() + "\n"},
        SCORED | {"score": 1.01},
        SCORED | {"score": math.nan},
        SCORED | {"at_us": -1},
        SCORED | {"unknown": 1},
        SCORED | {"model": ""},
        SCORED | {"text": "x" * 10_001},
    ],
)
def test_malformed_event__is_refused(event: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        EVENT_ADAPTER.validate_python(event)


@pytest.mark.parametrize(
    "limits",
    [
        {"above": 10},
        {"below": 10},
        {"above": 0},
        {"above": 10, "resolve_at": 9},
        {"below": 10, "resolve_at": 11},
        {"above": 10, "resolve_at": 10},
        {"below": 0, "resolve_at": 0},
    ],
)
def test_threshold_rule__takes_one_limit_and_a_healthier_end(limits: dict[str, float]) -> None:
    ThresholdRule.model_validate(RULE | limits)


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"above": 1, "below": 0},
        {"above": 10, "resolve_at": 11},
        {"below": 10, "resolve_at": 9},
        {"above": math.nan},
        {"below": math.inf},
        {"above": 1, "resolve_at": -math.inf},
    ],
)
def test_threshold_rule__refuses_any_other(limits: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ThresholdRule.model_validate(RULE | limits)


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a\n", "x" * 65, "-a", "é"])
def test_threshold_name__is_a_plain_word(name: str) -> None:
    with pytest.raises(ValidationError):
        ThresholdRule.model_validate({"name": name, "metric": "requests", "above": 1})


def test_time_without_zone__is_refused() -> None:
    with pytest.raises(ValidationError):
        AggregateRequest.model_validate_json('{"start": "2026-01-01T00:00:00", "end": "2026-01-02T00:00:00"}')
    AggregateRequest.model_validate_json('{"start": "2026-01-01T00:00:00Z", "end": "2026-01-02T00:00:00+02:00"}')


def test_windows__have_the_length_their_name_says() -> None:
    seconds = {"m": 60, "h": 3600, "d": 86_400}
    assert {name: int(name[:-1]) * seconds[name[-1]] for name in WINDOW_S} == WINDOW_S

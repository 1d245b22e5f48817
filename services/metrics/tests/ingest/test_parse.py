"""Which stream entries are events, and the reasons of dead letters."""

from collections.abc import Callable
from typing import Any

import pytest

from metrics.ingest.parse import FUTURE_US, Entry, sort_entries

NOW_US = 1_790_000_000_000_000
OLDEST_US = NOW_US - 1_000_000


def sort(payload: bytes | None) -> Any:
    arrivals, dead = sort_entries([Entry("1-0", payload)], now_us=NOW_US, oldest_us=OLDEST_US)
    return arrivals[0].event if arrivals else dead[0].reason


def test_valid_event__arrives(prediction: Callable[..., Any], counter: Callable[..., Any]) -> None:
    for event in (prediction(at_us=NOW_US), counter(at_us=NOW_US)):
        assert sort(event.model_dump_json(exclude_none=True).encode()) == event


@pytest.mark.parametrize("payload", [None, b"", b"\xff\xfe", b"{}", b"[1]", b'{"kind": "other"}', b'"\\ud800"'])
def test_what_is_no_event__is_malformed(payload: bytes | None) -> None:
    assert sort(payload) == "malformed"


def test_counter_with_its_most_limited_clients__arrives(counter: Callable[..., Any]) -> None:
    event = counter(at_us=NOW_US, n=7, clients=[("a" * 32, 4), ("b" * 32, 3)])
    assert b'"clients":[["' in event.model_dump_json(exclude_none=True).encode()
    assert sort(event.model_dump_json(exclude_none=True).encode()) == event


def test_counter_of_answers__is_malformed(counter: Callable[..., Any]) -> None:
    assert sort(counter(outcome="ok").model_dump_json().encode()) == "malformed"


@pytest.mark.parametrize(
    ("at_us", "reason"),
    [(OLDEST_US - 1, "too_old"), (0, "too_old"), (NOW_US + FUTURE_US + 1, "in_future"), (1 << 53, "in_future")],
)
def test_event_of_another_time__is_set_aside(prediction: Callable[..., Any], at_us: int, reason: str) -> None:
    assert sort(prediction(at_us=at_us).model_dump_json().encode()) == reason


def test_event_on_either_limit__arrives(prediction: Callable[..., Any]) -> None:
    for at_us in (OLDEST_US, NOW_US + FUTURE_US):
        assert sort(prediction(at_us=at_us).model_dump_json().encode()).at_us == at_us

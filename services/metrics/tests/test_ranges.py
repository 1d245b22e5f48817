"""Ranges, their buckets, and the rollups that cover them."""

import itertools
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contracts.aggregates import AggregateRequest, Bucket
from common.contracts.windows import WINDOW_S, Window
from metrics.errors import InvalidField
from metrics.ranges import (
    NARROWEST_S,
    SECOND,
    Range,
    as_time,
    asked_bucket,
    asked_range,
    slots,
    split_into_rollups,
)

NOW_US = 1_790_000_012_345_678
DAY_US = 86_400 * SECOND

TEN_US = NARROWEST_S * SECOND
ranges = st.builds(
    lambda start, length: Range(start * TEN_US, (start + length) * TEN_US),
    st.integers((NOW_US - 40 * DAY_US) // TEN_US, NOW_US // TEN_US),
    st.one_of(st.integers(1, 20), st.integers(1, 40 * 8_640)),
)


@given(ranges)
def test_spans__leave_no_gap_and_count_nothing_twice(wanted: Range) -> None:
    spans = list(split_into_rollups(7, wanted))
    assert spans[0].start == wanted.start
    assert spans[-1].end == wanted.end
    assert all(left.end == right.start for left, right in itertools.pairwise(spans))
    assert all(span.start % (span.width_s * SECOND) == span.end % (span.width_s * SECOND) == 0 for span in spans)
    assert len(spans) <= 7


@given(ranges, st.sampled_from([60, 300, 900, 3_600, 21_600, 86_400]))
def test_slots__make_up_the_range_and_break_at_multiples_of_the_bucket(asked: Range, bucket_s: int) -> None:
    cuts = slots(Range(asked.start, min(asked.end, asked.start + 500 * bucket_s * SECOND)), bucket_s)
    assert cuts[0].start == asked.start
    assert all(left.end == right.start for left, right in itertools.pairwise(cuts))
    assert all(cut.start % (bucket_s * SECOND) == 0 for cut in cuts[1:])
    assert all(0 < cut.end - cut.start <= bucket_s * SECOND for cut in cuts)


@pytest.mark.parametrize(("window", "width_s"), [("5m", 10), ("1h", 10), ("6h", 60), ("30d", 60)])
def test_window__ends_with_the_current_rollup(window: Window, width_s: int) -> None:
    asked = asked_range(AggregateRequest(window=window), NOW_US)
    assert asked.seconds == WINDOW_S[window]
    assert asked.end % (width_s * SECOND) == 0
    assert 0 <= asked.end - NOW_US < width_s * SECOND
    assert asked.until(NOW_US) == Range(asked.start, NOW_US)
    assert asked.before() == Range(asked.start - WINDOW_S[window] * SECOND, asked.start)


@pytest.mark.parametrize(("age_s", "width_s"), [(600, 10), (20_000, 60)])
def test_start_and_end__are_widened_to_rollups_that_exist(age_s: int, width_s: int) -> None:
    start = NOW_US - age_s * SECOND
    asked = asked_range(AggregateRequest(start=as_time(start), end=as_time(start + SECOND)), NOW_US)
    assert asked.start % (width_s * SECOND) == asked.end % (width_s * SECOND) == 0
    assert asked.start <= start < start + SECOND <= asked.end
    assert asked.seconds <= 2 * width_s


def test_start_and_end__are_taken_in_any_time_zone() -> None:
    start = datetime(2026, 9, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    asked = asked_range(AggregateRequest(start=start, end=start + timedelta(hours=1)), NOW_US)
    assert as_time(asked.start) == datetime(2026, 9, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("request_fields", "field"),
    [
        ({}, "window"),
        ({"window": "1h", "start": as_time(NOW_US)}, "window"),
        ({"start": as_time(NOW_US)}, "end"),
        ({"end": as_time(NOW_US)}, "start"),
        ({"start": as_time(NOW_US), "end": as_time(NOW_US)}, "end"),
        ({"start": as_time(NOW_US), "end": as_time(NOW_US - 1)}, "end"),
        ({"start": as_time(NOW_US - 401 * DAY_US), "end": as_time(NOW_US)}, "start"),
        ({"start": datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "end": as_time(NOW_US)}, "start"),
        ({"start": as_time(NOW_US), "end": datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))}, "end"),
    ],
)
def test_impossible_range__names_the_field(request_fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        asked_range(AggregateRequest(**request_fields), NOW_US)
    assert caught.value.field == field


@pytest.mark.parametrize(("window", "bucket"), [("7d", "1m"), ("6h", "10s")])
def test_impossible_bucket__names_the_field(window: Window, bucket: Bucket) -> None:
    request = AggregateRequest(window=window, bucket=bucket)
    with pytest.raises(InvalidField) as caught:
        asked_bucket(request, asked_range(request, NOW_US), NOW_US)
    assert caught.value.field == "bucket"


@pytest.mark.parametrize(
    ("window", "bucket_s"), [("5m", 10), ("15m", 10), ("1h", 60), ("6h", 300), ("24h", 3_600), ("30d", 86_400)]
)
def test_bucket_by_default__makes_a_readable_chart(window: Window, bucket_s: int) -> None:
    request = AggregateRequest(window=window)
    assert asked_bucket(request, asked_range(request, NOW_US), NOW_US) == bucket_s

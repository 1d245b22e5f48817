"""Ranges, their buckets, and the pieces that cover them: no gap, nothing twice."""

import itertools
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.contracts.aggregates import AggregateRequest
from common.contracts.windows import Window
from metrics.errors import InvalidField
from metrics.ranges import (
    RAW,
    SECOND,
    Range,
    as_time,
    as_us,
    asked_bucket,
    asked_range,
    minutes,
    refine,
    slots,
    split_into_rollups,
)

NOW_US = 1_790_000_012_345_678
DAY_US = 86_400 * SECOND

ranges = st.builds(
    lambda start, length: Range(start, start + length),
    st.integers(NOW_US - 40 * DAY_US, NOW_US),
    st.one_of(st.integers(1, 200 * SECOND), st.integers(1, 40 * DAY_US)),
)


@given(ranges)
def test_cover__leaves_no_gap_and_counts_nothing_twice(wanted: Range) -> None:
    pieces = list(split_into_rollups(7, wanted))
    assert pieces[0].start == wanted.start
    assert pieces[-1].end == wanted.end
    assert all(left.end == right.start for left, right in itertools.pairwise(pieces))
    assert {piece.slot for piece in pieces} == {7}


@given(ranges)
def test_cover__uses_rollups_on_their_own_edges_and_single_events_for_less_than_a_minute(wanted: Range) -> None:
    for piece in split_into_rollups(0, wanted):
        if piece.width_s == RAW:
            assert piece.end - piece.start < 120 * SECOND
        else:
            assert piece.start % (piece.width_s * SECOND) == piece.end % (piece.width_s * SECOND) == 0


@given(ranges)
def test_cover_of_any_range__takes_at_most_seven_pieces(wanted: Range) -> None:
    assert len(list(split_into_rollups(0, wanted))) <= 7


@given(ranges, st.sampled_from([60, 300, 900, 3_600, 21_600, 86_400]))
def test_slots__make_up_the_range_and_break_at_multiples_of_the_bucket(asked: Range, bucket_s: int) -> None:
    cuts = slots(Range(asked.start, min(asked.end, asked.start + 500 * bucket_s * SECOND)), bucket_s)
    assert cuts[0].start == asked.start
    assert all(left.end == right.start for left, right in itertools.pairwise(cuts))
    assert all(cut.start % (bucket_s * SECOND) == 0 for cut in cuts[1:])
    assert all(0 < cut.end - cut.start <= bucket_s * SECOND for cut in cuts)


def test_window__ends_now() -> None:
    asked = asked_range(AggregateRequest(window="5m"), NOW_US)
    assert asked == Range(NOW_US - 300 * SECOND, NOW_US)
    assert asked.before() == Range(NOW_US - 600 * SECOND, NOW_US - 300 * SECOND)


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


def test_too_many_buckets__names_the_field() -> None:
    request = AggregateRequest(window="7d", bucket="1m")
    with pytest.raises(InvalidField) as caught:
        asked_bucket(request, asked_range(request, NOW_US))
    assert caught.value.field == "bucket"


@pytest.mark.parametrize(("window", "bucket_s"), [("5m", 60), ("1h", 60), ("6h", 300), ("24h", 3_600), ("30d", 86_400)])
def test_bucket_left_open__makes_a_readable_chart(window: Window, bucket_s: int) -> None:
    request = AggregateRequest(window=window)
    assert asked_bucket(request, asked_range(request, NOW_US)) == bucket_s


def test_range_before_single_events_were_kept__is_widened_to_minutes() -> None:
    ragged = Range(
        as_us(datetime(2026, 9, 1, 10, 0, 30, tzinfo=UTC)), as_us(datetime(2026, 9, 1, 11, 0, 30, tzinfo=UTC))
    )
    minute = 60 * SECOND
    assert ragged.aligned_before(0) == ragged
    assert ragged.aligned_before(ragged.start + 1) == Range(ragged.start - minute // 2, ragged.end)
    assert ragged.aligned_before(ragged.end + 1) == Range(ragged.start - minute // 2, ragged.end + minute // 2)


@given(ranges, st.booleans())
def test_refined_cover__reads_single_events_for_less_than_five_seconds_where_it_may(wanted: Range, may: bool) -> None:
    pieces = list(split_into_rollups(7, wanted))
    fine = minutes(pieces) if may else set[int]()
    parts = [part for piece in pieces for part in refine(piece, fine)]
    assert all(left.end == right.start for left, right in itertools.pairwise(parts))
    assert (parts[0].start, parts[-1].end) == (wanted.start, wanted.end)
    if may:
        assert all(part.end - part.start < 10 * SECOND for part in parts if part.width_s == RAW)
    else:
        assert parts == pieces

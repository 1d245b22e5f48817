"""Time ranges in integer microseconds: the range of a request, its buckets, and the rollups that cover it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from common.contracts.aggregates import AggregateRequest, Bucket
from common.contracts.windows import WINDOW_S, TimeRange, Window
from metrics.errors import InvalidField

SECOND: Final = 1_000_000
NARROWEST_S: Final = 10
"""Width of the narrowest rollups. They are kept for NARROWEST_KEPT_S; older rollups are by the minute."""
NARROWEST_KEPT_S: Final = 3 * 3_600
WIDTHS_S: Final = (86_400, 3_600, 60, NARROWEST_S)
BUCKETS_S: Final[dict[Bucket, int]] = {
    "10s": 10, "1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "6h": 21_600, "1d": 86_400,
}  # fmt: skip  # one bucket a line would be a screenful

MAX_RANGE_S: Final = 400 * 86_400
MAX_BUCKETS: Final = 500
_DEFAULT_BUCKETS: Final = 90  # readable: minutes for an hour, hours for a day, days for a month
_READABLE_S: Final = NARROWEST_KEPT_S - 1_800  # maintenance may drop older rollups at any moment
_MINUTE_S: Final = 60
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)


class Range(NamedTuple):
    """A half-open range from `start` to `end`, in Unix time in µs."""

    start: int
    end: int

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / SECOND

    def before(self) -> "Range":
        """Return the range of equal length that ends where this one starts."""
        return Range(2 * self.start - self.end, self.start)

    def until(self, now_us: int) -> "Range":
        """Return the part before `now_us`. A range that starts later is unchanged."""
        return self._replace(end=min(self.end, now_us)) if self.start < now_us else self

    def body(self) -> TimeRange:
        return TimeRange(start=as_time(self.start), end=as_time(self.end))


class RollupSpan(NamedTuple):
    """A part of slot `slot` that rollups of one width cover exactly."""

    slot: int
    width_s: int
    start: int
    end: int


def as_us(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def as_time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """Return the start of a UTC day and of the next one."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start, start + timedelta(days=1)


def last(window_s: int, now_us: int) -> Range:
    """Return the `window_s` seconds up to the end of the current rollup."""
    width_us = _width_s(now_us - 2 * window_s * SECOND, now_us) * SECOND
    end = _ceil(now_us, width_us)
    return Range(end - window_s * SECOND, end)


def asked_range(request: AggregateRequest, now_us: int) -> Range:
    """Return the range of a request, widened to whole rollups. Raises InvalidField."""
    if request.window is not None:
        if request.start is not None or request.end is not None:
            raise InvalidField("window", "Give either window, or start and end.")
        return last(WINDOW_S[request.window], now_us)
    if request.start is None or request.end is None:
        raise InvalidField(
            "window" if request.start is request.end else "start" if request.end else "end",
            "Give either window, or both start and end.",
        )
    for field, time in (("start", request.start), ("end", request.end)):
        if not _EARLIEST <= time <= _LATEST:
            raise InvalidField(field, "Outside the years 2000 to 2099.")
    asked = Range(as_us(request.start), as_us(request.end))
    if asked.end <= asked.start:
        raise InvalidField("end", "Must be later than start.")
    if asked.seconds > MAX_RANGE_S:
        raise InvalidField("start", "The range is longer than 400 days.")
    return _widened(asked, now_us)


def _widened(asked: Range, now_us: int) -> Range:
    width_us = _width_s(asked.before().start, now_us) * SECOND
    return Range(asked.start // width_us * width_us, _ceil(asked.end, width_us))


def _width_s(earliest_us: int, now_us: int) -> int:
    """Return the width of the narrowest rollups that exist since `earliest_us`."""
    return NARROWEST_S if earliest_us >= now_us - _READABLE_S * SECOND else _MINUTE_S


def _ceil(us: int, width_us: int) -> int:
    return -(-us // width_us) * width_us


def span(window: Window | None, start: datetime | None, end: datetime | None, default: Window) -> AggregateRequest:
    """Return a request for the given range, or for `default` if all three are None."""
    is_open = window is None and start is None and end is None
    return AggregateRequest(window=default if is_open else window, start=start, end=end)


def asked_reference(asked: Range, length: Window, end: datetime | None = None) -> Range:
    """Return the reference of `asked`: `length` up to `end`, or up to its start. Raises InvalidField."""
    if end is not None and not _EARLIEST <= end <= _LATEST:
        raise InvalidField("reference_end", "Outside the years 2000 to 2099.")
    minute_us = _MINUTE_S * SECOND
    end_us = (asked.start if end is None else as_us(end)) // minute_us * minute_us
    return Range(end_us - WINDOW_S[length] * SECOND, end_us)


def asked_bucket(request: AggregateRequest, asked: Range, now_us: int) -> int:
    """Return the requested bucket width in seconds, or a readable default. Raises InvalidField."""
    narrowest_s = _width_s(asked.start, now_us)
    if request.bucket is None:
        widths = (s for s in BUCKETS_S.values() if s >= narrowest_s and asked.seconds / s <= _DEFAULT_BUCKETS)
        return next(widths, 86_400)
    bucket_s = BUCKETS_S[request.bucket]
    if asked.seconds / bucket_s > MAX_BUCKETS:
        raise InvalidField("bucket", f"More than {MAX_BUCKETS} buckets; choose wider ones.")
    if bucket_s < narrowest_s:
        raise InvalidField("bucket", "Buckets of 10s exist for the last 2 hours; choose wider ones.")
    return bucket_s


def slots(asked: Range, bucket_s: int) -> list[Range]:
    """Cut `asked` at the multiples of `bucket_s`. The first and the last slot may be shorter."""
    width = bucket_s * SECOND
    starts = [asked.start, *range((asked.start // width + 1) * width, asked.end, width)]
    return [Range(start, end) for start, end in zip(starts, [*starts[1:], asked.end], strict=True)]


def split_into_rollups(slot: int, wanted: Range, widths_s: Sequence[int] = WIDTHS_S) -> Iterator[RollupSpan]:
    """Cover `wanted` with the fewest spans: the widest rollups in the middle, narrower ones at its edges.

    Both ends of `wanted` are multiples of the narrowest width.
    """
    if wanted.start >= wanted.end:
        return
    width = widths_s[0] * SECOND
    first, after = _ceil(wanted.start, width), wanted.end // width * width
    if first >= after:
        yield from split_into_rollups(slot, wanted, widths_s[1:])
        return
    yield from split_into_rollups(slot, Range(wanted.start, first), widths_s[1:])
    yield RollupSpan(slot, widths_s[0], first, after)
    yield from split_into_rollups(slot, Range(after, wanted.end), widths_s[1:])

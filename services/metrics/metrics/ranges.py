"""Time ranges in integer microseconds: what a request asks for, its buckets, and the rollups that cover a range."""

from collections.abc import Iterable, Iterator, Sequence, Set
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

from common.contracts.aggregates import AggregateRequest, Bucket
from common.contracts.windows import WINDOW_S, TimeRange, Window
from metrics.errors import InvalidField

SECOND: Final = 1_000_000
WIDTHS_S: Final = (86_400, 3_600, 60)  # of the rollups, widest first
FINE_S: Final = 5  # the width of more rollups, of the last hours: for the ragged edges of ranges that end about now
RAW: Final = 0  # the width of no rollup: single events
BUCKETS_S: Final[dict[Bucket, int]] = {"1m": 60, "5m": 300, "15m": 900, "1h": 3_600, "6h": 21_600, "1d": 86_400}

MAX_RANGE_S: Final = 400 * 86_400
MAX_BUCKETS: Final = 2_000
_DEFAULT_BUCKETS: Final = 72  # a chart's worth: minutes for an hour, hours for a day, days for a month
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)


class Range(NamedTuple):
    """From `start` up to, not including, `end`: Unix time in µs."""

    start: int
    end: int

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / SECOND

    def before(self) -> "Range":
        """The range of equal length that ends where this one starts."""
        return Range(2 * self.start - self.end, self.start)

    def aligned_before(self, raw_from: int) -> "Range":
        """Widened to whole minutes wherever single events are kept no longer (before `raw_from`)."""
        minute = 60 * SECOND
        start = self.start if self.start >= raw_from else self.start // minute * minute
        end = self.end if self.end >= raw_from else -(-self.end // minute) * minute
        return Range(start, end)

    def body(self) -> TimeRange:
        return TimeRange(start=as_time(self.start), end=as_time(self.end))


class RollupSpan(NamedTuple):
    """A part of slot `slot` that rollups of one width, or single events, cover exactly."""

    slot: int
    width_s: int
    start: int
    end: int


def as_us(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def as_time(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def day_bounds(day: date) -> tuple[datetime, datetime]:
    """The first moment of a day in UTC, and of the next."""
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start, start + timedelta(days=1)


def last(window_s: int, now_us: int) -> Range:
    """The `window_s` seconds up to now."""
    return Range(now_us - window_s * SECOND, now_us)


def asked_range(request: AggregateRequest, now_us: int) -> Range:
    """The range a request asks for. Raises InvalidField."""
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
    return asked


def span(window: Window | None, start: datetime | None, end: datetime | None, default: Window) -> AggregateRequest:
    """The range as a request for aggregates would name it; `default` where none of the three is given."""
    is_open = window is None and start is None and end is None
    return AggregateRequest(window=default if is_open else window, start=start, end=end)


def asked_reference(asked: Range, length: Window, end: datetime | None = None) -> Range:
    """The stretch that `asked` is compared with: `length` up to `end`, or up to its start. Raises InvalidField."""
    if end is not None and not _EARLIEST <= end <= _LATEST:
        raise InvalidField("reference_end", "Outside the years 2000 to 2099.")
    minute = 60 * SECOND
    end_us = (asked.start if end is None else as_us(end)) // minute * minute  # as rollups know it
    return Range(end_us - WINDOW_S[length] * SECOND, end_us)


def asked_bucket(request: AggregateRequest, asked: Range) -> int:
    """Seconds per point of the series: as asked, or the finest that makes a readable chart. Raises InvalidField."""
    if request.bucket is None:
        return next((s for s in BUCKETS_S.values() if asked.seconds / s <= _DEFAULT_BUCKETS), 86_400)
    if asked.seconds / BUCKETS_S[request.bucket] > MAX_BUCKETS:
        raise InvalidField("bucket", f"More than {MAX_BUCKETS} buckets; ask for wider ones.")
    return BUCKETS_S[request.bucket]


def slots(asked: Range, bucket_s: int) -> list[Range]:
    """`asked` cut at the multiples of `bucket_s`; the first and the last may be shorter than the others."""
    width = bucket_s * SECOND
    starts = [asked.start, *range((asked.start // width + 1) * width, asked.end, width)]
    return [Range(start, end) for start, end in zip(starts, [*starts[1:], asked.end], strict=True)]


def minutes(pieces: Iterable[RollupSpan]) -> set[int]:
    """The start of every minute that any of `pieces` touches."""
    width = 60 * SECOND
    return {at for piece in pieces for at in range(piece.start // width * width, piece.end, width)}


def refine(piece: RollupSpan, fine: Set[int]) -> Iterator[RollupSpan]:
    """Fine rollups in the place of single events, where all minutes of `piece` are among those that have them."""
    if piece.width_s == RAW and minutes([piece]) <= fine:
        yield from split_into_rollups(piece.slot, Range(piece.start, piece.end), [FINE_S])
    else:
        yield piece


def split_into_rollups(slot: int, wanted: Range, widths_s: Sequence[int] = WIDTHS_S) -> Iterator[RollupSpan]:
    """The fewest pieces that make up `wanted`: the widest rollups in the middle, single events at ragged edges."""
    if wanted.start >= wanted.end:
        return
    if not widths_s:
        yield RollupSpan(slot, RAW, *wanted)
        return
    width = widths_s[0] * SECOND
    first, after = -(-wanted.start // width) * width, wanted.end // width * width
    if first >= after:
        yield from split_into_rollups(slot, wanted, widths_s[1:])
        return
    yield from split_into_rollups(slot, Range(wanted.start, first), widths_s[1:])
    yield RollupSpan(slot, widths_s[0], first, after)
    yield from split_into_rollups(slot, Range(after, wanted.end), widths_s[1:])

"""Answers POST /metrics/aggregated: decides what to read, and lays out what was read; it neither stores nor serves."""

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from common.contracts import WINDOW_S, Aggregate, AggregateRequest, Group, GroupBy, ThresholdRule, Window
from metrics.rollups import Rollups, Snapshot
from metrics.tally import Source, Tally
from metrics.threshold_store import newest
from metrics.thresholds import judge
from metrics.windows import SECOND, Range, asked_bucket, asked_range, cover, last, slots


class Aggregates:
    """`lag_s` is asked before the snapshot is taken, so that an answer never claims to be fresher than it is."""

    def __init__(
        self,
        rollups: Rollups,
        lag_s: Callable[[], Awaitable[float | None]],
        *,
        exact_max: int,
        now: Callable[[], float],
    ) -> None:
        self._rollups = rollups
        self._lag_s = lag_s
        self._exact_max = exact_max
        self._now = now

    async def answer(self, request: AggregateRequest) -> Aggregate:
        """Raises InvalidField and StoreUnavailable."""
        now_us = int(self._now() * SECOND)
        asked = asked_range(request, now_us)
        bucket_s = asked_bucket(request, asked)
        lag_s = await self._lag_s()
        async with self._rollups.snapshot() as snapshot:
            rules = (await newest(snapshot.connection)).document.rules
            raw_from = await snapshot.raw_from()
            sheet = _Sheet(request, asked.aligned_before(raw_from), bucket_s, rules, now_us, raw_from)
            await self._fill(sheet, snapshot, raw_from)
        return sheet.aggregate(rules, lag_s)

    async def _fill(self, sheet: "_Sheet", snapshot: Snapshot, raw_from: int) -> None:
        predictions = [0] * len(sheet.sections)
        pieces = [
            p for section in sheet.sections for i, cut in enumerate(section.cuts, section.slot) for p in cover(i, cut)
        ]
        for row in await snapshot.rows(pieces):
            if row.source.model:
                predictions[sheet.section_of(row.slot)] += row.n
            for tally in sheet.tallies(row.slot, row.source):
                tally.add(row)
        for section, n in zip(sheet.sections, predictions, strict=True):
            if n <= self._exact_max and section.range.start >= raw_from:
                for one in await snapshot.answered(section.range):
                    for tally in sheet.tallies(section.slot_at(one.at_us), one.source):
                        tally.add_exact(one.latency_us)


class _Section(NamedTuple):
    """A range to sum up, cut into slots that are numbered from `slot` on."""

    range: Range
    cuts: Sequence[Range]
    slot: int

    def slot_at(self, at_us: int) -> int:
        return self.slot + bisect_right(self.cuts, at_us, key=lambda cut: cut.start) - 1


class _Sheet:
    """All sums of one answer: the asked range by bucket, the range before it, and one range for each rule window."""

    def __init__(
        self,
        request: AggregateRequest,
        range: Range,
        bucket_s: int,
        rules: Sequence[ThresholdRule],
        now_us: int,
        raw_from: int,
    ) -> None:
        self._filters = request.filters
        self._group_by: list[GroupBy] = list(dict.fromkeys(request.group_by))
        self._bucket_us = bucket_s * SECOND
        self._windows: list[Window] = sorted({rule.window for rule in rules})
        cuts = slots(range, bucket_s)
        others = [range.before(), *(last(WINDOW_S[window], now_us) for window in self._windows)]
        self.sections = [_Section(range, cuts, 0)]
        for slot, other in enumerate(others, len(cuts)):
            aligned = other.aligned_before(raw_from)
            self.sections.append(_Section(aligned, [aligned], slot))
        self._points = len(cuts)
        self._slots = [Tally() for _ in cuts] + [Tally() for _ in others]
        self._groups: dict[tuple[str, ...], Tally] = {}

    def section_of(self, slot: int) -> int:
        return max(0, slot - self._points + 1)

    def tallies(self, slot: int, source: Source) -> list[Tally]:
        """Where what `source` did in `slot` counts. Filters don't apply to rules."""
        section = self.section_of(slot)
        if section <= 1 and not source.matches(self._filters):
            return []
        found = [self._slots[slot]]
        if section == 0 and self._group_by:
            found.append(self._groups.setdefault(source.group(self._group_by), Tally()))
        return found

    def aggregate(self, rules: Sequence[ThresholdRule], lag_s: float | None) -> Aggregate:
        current, previous, *ruled = self.sections
        points = self._slots[: len(current.cuts)]
        total = Tally()
        for tally in points:
            total.merge(tally)
        states = dict(zip(self._windows, (self._slots[one.slot].summary(one.range) for one in ruled), strict=True))
        return Aggregate(
            **dict(total.summary(current.range)),
            previous=self._slots[previous.slot].summary(previous.range),
            series=[
                tally.point(cut.start // self._bucket_us * self._bucket_us)
                for cut, tally in zip(current.cuts, points, strict=True)
            ],
            groups=[
                Group(
                    key=dict(zip(self._group_by, key, strict=True)), requests=tally.requests, latency_ms=tally.latency()
                )
                for key, tally in sorted(self._groups.items(), key=lambda item: (-item[1].requests, item[0]))
            ],
            thresholds=[judge(rule, states[rule.window]) for rule in rules],
            lag_s=lag_s,
        )

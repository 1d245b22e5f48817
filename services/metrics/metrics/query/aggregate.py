"""Answers POST /metrics/aggregated: decides what to read, and lays out what was read; it neither stores nor serves."""

import asyncio
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from common.contracts.aggregates import Aggregate, AggregateRequest, DriftReport, Filters, Group, GroupBy
from common.contracts.thresholds import ThresholdState
from metrics.alerting.rule_evaluation import RuleWindows, tallies
from metrics.alerting.rule_store import newest
from metrics.query.accumulator import Accumulator, GroupKey
from metrics.query.drift import drifts
from metrics.query.rollups import Rollups, Snapshot
from metrics.ranges import SECOND, Range, asked_bucket, asked_range, slots, split_into_rollups

ROWS_AT_ONCE: Final = 500  # some milliseconds, after which other requests get their turn


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
            sheet = _AggregateBuilder(request, asked.aligned_before(raw_from), bucket_s, raw_from)
            standing = RuleWindows(rules, now_us, raw_from)
            sums = [Accumulator() for _ in standing.ranges]
            await self._fill(sheet, standing.ranges, sums, snapshot, raw_from)
        return sheet.aggregate(standing.states(sums), lag_s)

    async def drift(self, range: Range, reference: Range, filters: Filters) -> DriftReport:
        """How far the predictions of `range` moved from those of `reference`. Raises StoreUnavailable."""
        lag_s = await self._lag_s()
        async with self._rollups.snapshot() as snapshot:
            raw_from = await snapshot.raw_from()
            ranges = [one.aligned_before(raw_from) for one in (range, reference)]
            now, before = await tallies(snapshot, ranges, filters)
        found = drifts(now, before)._asdict()
        return DriftReport(range=ranges[0].body(), reference=ranges[1].body(), lag_s=lag_s, **found)

    async def _fill(
        self,
        sheet: "_AggregateBuilder",
        ranges: Sequence[Range],
        sums: Sequence[Accumulator],
        snapshot: Snapshot,
        raw_from: int,
    ) -> None:
        """One read for everything: the sheet, and the sum over each of `ranges`."""
        predictions = [0] * len(sheet.sections)
        cuts = [cut for section in sheet.sections for cut in section.cuts]
        pieces = [piece for slot, range in enumerate([*cuts, *ranges]) for piece in split_into_rollups(slot, range)]
        for number, row in enumerate(await snapshot.rows(pieces, sheet.details), 1):
            if number % ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)
            if row.slot >= len(cuts):
                sums[row.slot - len(cuts)].add(row)
                continue
            predictions[sheet.section_of(row.slot)] += row.singles
            for tally in sheet.tallies(row.slot, row.source):
                tally.add(row)
        few = {
            place: section.range
            for place, (section, n) in enumerate(zip(sheet.sections, predictions, strict=True))
            if 0 < n <= self._exact_max and section.range.start >= raw_from
        }
        for one in await snapshot.answered(few):
            for tally in sheet.tallies(sheet.sections[one.place].slot_at(one.at_us), one.source):
                tally.add_exact(one.latency_us)


class _Window(NamedTuple):
    """A range to sum up, cut into slots that are numbered from `slot` on."""

    range: Range
    cuts: Sequence[Range]
    slot: int

    def slot_at(self, at_us: int) -> int:
        return self.slot + bisect_right(self.cuts, at_us, key=lambda cut: cut.start) - 1


class _AggregateBuilder:
    """All sums of one answer: the asked range by bucket, and the range before it."""

    def __init__(self, request: AggregateRequest, range: Range, bucket_s: int, raw_from: int) -> None:
        self._filters = request.filters
        self._group_by: list[GroupBy] = list(dict.fromkeys(request.group_by))
        self.details = {*self._group_by, *request.filters.model_dump(exclude_none=True)}
        self._bucket_us = bucket_s * SECOND
        cuts = slots(range, bucket_s)
        before = range.before().aligned_before(raw_from)
        self.sections = [_Window(range, cuts, 0), _Window(before, [before], len(cuts))]
        self._slots = [Accumulator() for _ in (*cuts, before)]
        self._groups: dict[tuple[str, ...], Accumulator] = {}

    def section_of(self, slot: int) -> int:
        return int(slot == len(self._slots) - 1)

    def tallies(self, slot: int, source: GroupKey) -> list[Accumulator]:
        """Where what `source` did in `slot` counts."""
        if not source.matches(self._filters):
            return []
        found = [self._slots[slot]]
        if self._group_by and not self.section_of(slot):
            found.append(self._groups.setdefault(source.group(self._group_by), Accumulator()))
        return found

    def aggregate(self, states: list[ThresholdState], lag_s: float | None) -> Aggregate:
        current, previous = self.sections
        points = self._slots[: len(current.cuts)]
        total = Accumulator()
        for tally in points:
            total.merge(tally)
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
            thresholds=states,
            lag_s=lag_s,
        )

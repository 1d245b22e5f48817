"""Computes aggregates and drift: plans which rollups to read and builds the response."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from common.contracts.aggregates import Aggregate, AggregateRequest, DriftReport, Filters, Group, GroupBy
from common.contracts.thresholds import ThresholdState
from metrics.alerting.rule_evaluation import RuleWindows, sum_ranges
from metrics.alerting.rule_store import newest
from metrics.query.accumulator import Accumulator, GroupKey
from metrics.query.drift import drifts
from metrics.query.feedback import accuracy
from metrics.query.rollups import Rollups, Snapshot
from metrics.ranges import SECOND, Range, asked_bucket, asked_range, slots, split_into_rollups

ROWS_AT_ONCE: Final = 500  # takes some milliseconds; then other requests run


class Aggregates:
    """Computes aggregates. The lag is read before the snapshot, so no response claims to be fresher than it is."""

    def __init__(
        self, rollups: Rollups, lag_s: Callable[[], Awaitable[float | None]], *, now: Callable[[], float]
    ) -> None:
        self._rollups = rollups
        self._lag_s = lag_s
        self._now = now

    async def answer(self, request: AggregateRequest) -> Aggregate:
        """Return the aggregate. Raises InvalidField and StoreUnavailable."""
        now_us = int(self._now() * SECOND)
        asked = asked_range(request, now_us)
        builder = _AggregateBuilder(request, asked, asked_bucket(request, asked, now_us))
        lag_s = await self._lag_s()
        async with self._rollups.snapshot() as snapshot:
            rules = RuleWindows((await newest(snapshot.connection)).document.rules, now_us)
            await _fill(builder, rules, snapshot)
            await rules.read_feedback(snapshot.connection)
            total = builder.total()
            truth = await accuracy(snapshot.connection, asked, request.filters, total.predictions)
        return builder.aggregate(total, rules.states(), lag_s, now_us).model_copy(update={"feedback": truth})

    async def drift(self, range: Range, reference: Range, filters: Filters) -> DriftReport:
        """Compare the predictions of `range` with those of `reference`. Raises StoreUnavailable."""
        lag_s = await self._lag_s()
        async with self._rollups.snapshot() as snapshot:
            now, before = await sum_ranges(snapshot, [range, reference], filters)
        found = drifts(now, before)._asdict()
        return DriftReport(range=range.body(), reference=reference.body(), lag_s=lag_s, **found)


async def _fill(builder: "_AggregateBuilder", rules: RuleWindows, snapshot: Snapshot) -> None:
    """Read all rows in one snapshot: the slots of the response and the ranges of the rules."""
    cuts = builder.cuts
    spans = [span for slot, range in enumerate([*cuts, *rules.ranges]) for span in split_into_rollups(slot, range)]
    for number, row in enumerate(await snapshot.rows(spans, builder.details | rules.details), 1):
        if number % ROWS_AT_ONCE == 0:
            await asyncio.sleep(0)
        if row.slot >= len(cuts):
            rules.add(row.slot - len(cuts), row)
            continue
        for accumulator in builder.accumulators(row.slot, row.key):
            accumulator.add(row)


class Window(NamedTuple):
    """A range and its slots, numbered from `slot` on."""

    range: Range
    cuts: Sequence[Range]
    slot: int


class _AggregateBuilder:
    """All sums of one response: the range by bucket, and the previous range."""

    def __init__(self, request: AggregateRequest, range: Range, bucket_s: int) -> None:
        self._filters = request.filters
        self._group_by: list[GroupBy] = list(dict.fromkeys(request.group_by))
        self.details = {*self._group_by, *request.filters.model_dump(exclude_none=True)}
        self._bucket_us = bucket_s * SECOND
        cuts = slots(range, bucket_s)
        self._current = Window(range, cuts, 0)
        self._previous = Window(range.before(), [range.before()], len(cuts))
        self.cuts = [*cuts, range.before()]
        self._slots = [Accumulator() for _ in self.cuts]
        self._groups: dict[tuple[str, ...], Accumulator] = {}

    def accumulators(self, slot: int, key: GroupKey) -> list[Accumulator]:
        """Return where the rows of `key` in `slot` count."""
        if not key.matches(self._filters):
            return []
        found = [self._slots[slot]]
        if self._group_by and slot < self._previous.slot:
            found.append(self._groups.setdefault(key.group(self._group_by), Accumulator()))
        return found

    def total(self) -> Accumulator:
        """Return the sum of all slots of the range."""
        total = Accumulator()
        for point in self._slots[: self._previous.slot]:
            total.merge(point)
        return total

    def aggregate(
        self, total: Accumulator, states: list[ThresholdState], lag_s: float | None, now_us: int
    ) -> Aggregate:
        points = self._slots[: self._previous.slot]
        return Aggregate(
            **dict(total.summary(self._current.range.until(now_us))),
            previous=self._slots[self._previous.slot].summary(self._previous.range),
            series=[
                point.point(cut.start // self._bucket_us * self._bucket_us)
                for cut, point in zip(self._current.cuts, points, strict=True)
            ],
            groups=[
                Group(
                    key=dict(zip(self._group_by, key, strict=True)),
                    requests=sums.requests,
                    latency_ms=sums.latency.latency(),
                )
                for key, sums in sorted(self._groups.items(), key=lambda item: (-item[1].requests, item[0]))
            ],
            thresholds=states,
            lag_s=lag_s,
        )

"""The current value of each threshold rule, and sums over whole ranges, read at once."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, NamedTuple

from common.contracts.aggregates import Accuracy, Filters
from common.contracts.thresholds import ThresholdRule, ThresholdState
from common.contracts.windows import WINDOW_S, Window
from metrics.alerting.rules import evaluate_rule
from metrics.query.accumulator import Accumulator, Row
from metrics.query.drift import drifts
from metrics.query.feedback import accuracy
from metrics.query.rollups import Snapshot
from metrics.ranges import Range, asked_reference, last, split_into_rollups
from metrics.storage.database import Connection

DEFAULT_REFERENCE: Final[Window] = "24h"
_EVERYTHING: Final = Filters()


class _Need(NamedTuple):
    """A sum that a rule needs."""

    range: Range
    filters: Filters


class RuleWindows:
    """The sums that rules need, each over the rule's window up to now."""

    def __init__(self, rules: Sequence[ThresholdRule], now_us: int) -> None:
        self._now_us = now_us
        self._needs = {rule: _Need(last(WINDOW_S[rule.window], now_us), _filters(rule)) for rule in rules}
        self._references = {
            rule: _Need(asked_reference(need.range, rule.reference or DEFAULT_REFERENCE), need.filters)
            for rule, need in self._needs.items()
            if rule.metric.startswith("drift.")
        }
        self._sums = {need: Accumulator() for need in (*self._needs.values(), *self._references.values())}
        self.ranges = sorted({need.range for need in self._sums})
        self.details = {name for need in self._sums for name in need.filters.model_dump(exclude_none=True)}
        self._truths: dict[_Need, Accuracy] = {}
        self._by_range: dict[Range, list[tuple[Filters, Accumulator]]] = defaultdict(list)
        for need, total in self._sums.items():
            self._by_range[need.range].append((need.filters, total))

    def add(self, place: int, row: Row) -> None:
        """Count a row of range number `place`."""
        for filters, total in self._by_range[self.ranges[place]]:
            if row.key.matches(filters):
                total.add(row)

    async def read_feedback(self, connection: Connection) -> None:
        """Read the true labels that rules need. Call it once all rows are added."""
        for rule, need in self._needs.items():
            if rule.metric == "accuracy":
                self._truths[need] = await accuracy(connection, *need, self._sums[need].predictions)

    def states(self) -> list[ThresholdState]:
        """Return the state of each rule. Call it once all rows are added."""
        return [
            evaluate_rule(
                rule,
                self._sums[need].summary(need.range.until(self._now_us)),
                drifts(self._sums[need], self._sums[self._references[rule]]) if rule in self._references else None,
                self._truths.get(need) if rule.metric == "accuracy" else None,
            )
            for rule, need in self._needs.items()
        ]


def _filters(rule: ThresholdRule) -> Filters:
    """Return the filters of a rule's events. A label share counts events of all labels."""
    if rule.where is None:
        return _EVERYTHING
    return Filters(**rule.where.model_dump(exclude={"label"} if rule.metric == "label_share" else None))


async def evaluate_rules(snapshot: Snapshot, rules: Sequence[ThresholdRule], now_us: int) -> list[ThresholdState]:
    """Return the state of each rule."""
    windows = RuleWindows(rules, now_us)
    spans = [span for place, range in enumerate(windows.ranges) for span in split_into_rollups(place, range)]
    for row in await snapshot.rows(spans, windows.details):
        windows.add(row.slot, row)
    await windows.read_feedback(snapshot.connection)
    return windows.states()


async def sum_ranges(snapshot: Snapshot, ranges: Sequence[Range], filters: Filters) -> list[Accumulator]:
    """Return the sum over each range."""
    sums = [Accumulator() for _ in ranges]
    spans = [span for place, range in enumerate(ranges) for span in split_into_rollups(place, range)]
    for row in await snapshot.rows(spans, filters.model_dump(exclude_none=True)):
        if row.key.matches(filters):
            sums[row.slot].add(row)
    return sums

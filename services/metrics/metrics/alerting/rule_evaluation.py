"""The current value of each threshold rule, and sums over whole ranges, read at once."""

from collections.abc import Sequence
from typing import Final

from common.contracts.aggregates import Filters
from common.contracts.base import WINDOW_S, Window
from common.contracts.thresholds import ThresholdRule, ThresholdState
from metrics.alerting.rules import evaluate_rule
from metrics.query.accumulator import Accumulator
from metrics.query.drift import drifts
from metrics.query.rollups import Snapshot
from metrics.ranges import Range, asked_reference, last, split_into_rollups

DEFAULT_REFERENCE: Final[Window] = "24h"
_EVERYTHING: Final = Filters()


class RuleWindows:
    """The ranges that rules need, each over its own window up to now, and their states once these are summed."""

    def __init__(self, rules: Sequence[ThresholdRule], now_us: int) -> None:
        self._now_us = now_us
        self._windows = {rule: last(WINDOW_S[rule.window], now_us) for rule in rules}
        self._references = {
            rule: asked_reference(self._windows[rule], rule.reference or DEFAULT_REFERENCE)
            for rule in rules
            if rule.metric.startswith("drift.")
        }
        self.ranges = sorted({*self._windows.values(), *self._references.values()})

    def states(self, sums: Sequence[Accumulator]) -> list[ThresholdState]:
        """Return the state of each rule from a sum for each of `ranges`."""
        over = dict(zip(self.ranges, sums, strict=True))
        return [
            evaluate_rule(
                rule,
                over[window].summary(window.until(self._now_us)),
                drifts(over[window], over[self._references[rule]]) if rule in self._references else None,
            )
            for rule, window in self._windows.items()
        ]


async def evaluate_rules(snapshot: Snapshot, rules: Sequence[ThresholdRule], now_us: int) -> list[ThresholdState]:
    """Return the state of each rule."""
    windows = RuleWindows(rules, now_us)
    return windows.states(await sum_ranges(snapshot, windows.ranges))


async def sum_ranges(snapshot: Snapshot, ranges: Sequence[Range], filters: Filters = _EVERYTHING) -> list[Accumulator]:
    """Return the sum over each range."""
    sums = [Accumulator() for _ in ranges]
    spans = [span for place, range in enumerate(ranges) for span in split_into_rollups(place, range)]
    for row in await snapshot.rows(spans, filters.model_dump(exclude_none=True)):
        if row.key.matches(filters):
            sums[row.slot].add(row)
    return sums

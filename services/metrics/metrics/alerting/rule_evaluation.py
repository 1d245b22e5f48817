"""Where threshold rules stand now, and how far distributions moved: sums over a few whole ranges, read at once."""

from collections.abc import Sequence
from typing import Final

from common.contracts.aggregates import Filters
from common.contracts.thresholds import ThresholdRule, ThresholdState
from common.contracts.windows import WINDOW_S, Window
from metrics.alerting.rules import evaluate_rule
from metrics.query.accumulator import Accumulator
from metrics.query.drift import drifts
from metrics.query.rollups import Snapshot
from metrics.ranges import Range, asked_reference, last, split_into_rollups

DEFAULT_REFERENCE: Final[Window] = "24h"
_EVERYTHING: Final = Filters()


class RuleWindows:
    """Where rules stand, once the sums over `ranges` are known: each over its own window up to now.

    Percentiles are estimates, so that it is quick always.
    """

    def __init__(self, rules: Sequence[ThresholdRule], now_us: int, raw_from: int) -> None:
        self._windows = {rule: last(WINDOW_S[rule.window], now_us).aligned_before(raw_from) for rule in rules}
        self._references = {
            rule: asked_reference(self._windows[rule], rule.reference or DEFAULT_REFERENCE)
            for rule in rules
            if rule.metric.startswith("drift.")
        }
        self.ranges = sorted({*self._windows.values(), *self._references.values()})

    def states(self, sums: Sequence[Accumulator]) -> list[ThresholdState]:
        """Takes a sum for each of `ranges`."""
        over = dict(zip(self.ranges, sums, strict=True))
        return [
            evaluate_rule(
                rule,
                over[window].summary(window),
                drifts(over[window], over[self._references[rule]]) if rule in self._references else None,
            )
            for rule, window in self._windows.items()
        ]


async def evaluate_rules(snapshot: Snapshot, rules: Sequence[ThresholdRule], now_us: int) -> list[ThresholdState]:
    """Where each rule stands."""
    standing = RuleWindows(rules, now_us, await snapshot.raw_from())
    return standing.states(await tallies(snapshot, standing.ranges))


async def tallies(snapshot: Snapshot, ranges: Sequence[Range], filters: Filters = _EVERYTHING) -> list[Accumulator]:
    """The sum over each range, with estimated percentiles."""
    sums = [Accumulator() for _ in ranges]
    pieces = [piece for place, range in enumerate(ranges) for piece in split_into_rollups(place, range)]
    for row in await snapshot.rows(pieces, filters.model_dump(exclude_none=True)):
        if row.source.matches(filters):
            sums[row.slot].add(row)
    return sums

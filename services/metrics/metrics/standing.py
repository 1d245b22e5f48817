"""Where threshold rules stand now, and how far distributions moved: sums over a few whole ranges, read at once."""

from collections.abc import Sequence
from typing import Final

from common.contracts import WINDOW_S, Filters, ThresholdRule, ThresholdState, Window
from metrics.drift import drifts
from metrics.rollups import Snapshot
from metrics.tally import Tally
from metrics.thresholds import judge
from metrics.windows import Range, asked_reference, cover, last

DEFAULT_REFERENCE: Final[Window] = "24h"
_EVERYTHING: Final = Filters()


async def stand(snapshot: Snapshot, rules: Sequence[ThresholdRule], now_us: int) -> list[ThresholdState]:
    """Where each rule stands, over its own window up to now. Percentiles are estimates, so that it is quick always."""
    raw_from = await snapshot.raw_from()
    windows = {rule: last(WINDOW_S[rule.window], now_us).aligned_before(raw_from) for rule in rules}
    references = {
        rule: asked_reference(windows[rule], rule.reference or DEFAULT_REFERENCE)
        for rule in rules
        if rule.metric.startswith("drift.")
    }
    ranges = sorted({*windows.values(), *references.values()})
    sums = dict(zip(ranges, await tallies(snapshot, ranges), strict=True))
    return [
        judge(
            rule,
            sums[windows[rule]].summary(windows[rule]),
            drifts(sums[windows[rule]], sums[references[rule]]) if rule in references else None,
        )
        for rule in rules
    ]


async def tallies(snapshot: Snapshot, ranges: Sequence[Range], filters: Filters = _EVERYTHING) -> list[Tally]:
    """The sum over each range, with estimated percentiles."""
    sums = [Tally() for _ in ranges]
    for row in await snapshot.rows([piece for place, range in enumerate(ranges) for piece in cover(place, range)]):
        if row.source.matches(filters):
            sums[row.slot].add(row)
    return sums

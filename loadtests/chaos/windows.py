"""Checks the limits from outside: what no window may exceed, and what may not have been refused.

A request was decided somewhere between its sending and its answer, so a window only counts what lies in it for
certain, and a refusal is wrong only if no request that may have been charged explains it. No false alarm, whatever
the latencies; the shorter these are, the sharper the check.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chaos.answers import Answer


class Span(NamedTuple):
    """Unix seconds."""

    start_s: float
    end_s: float


class Charge(NamedTuple):
    """`cost` units, charged at a moment between these two."""

    earliest_s: float
    latest_s: float
    cost: int


@dataclass(frozen=True, slots=True)
class Rule:
    """The limit, and the times at which its stated exceptions hold.

    `outages`: the edge could not ask PostgreSQL, or stood still: across such a switch a window may hold twice the
    limit. `deaths`: the edge was killed; during an outage its memory was all that was left, so one limit more.
    `alone`: one edge decided from its memory without a switch. A window within holds limit + edges - 1, and one runs.
    """

    limit: int
    window_s: float
    outages: Sequence[Span] = ()
    deaths: Sequence[float] = ()
    alone: Sequence[Span] = ()

    def bound(self, window: Span) -> int:
        """The most that `window` may hold."""
        if not any(outage.start_s < window.end_s and window.start_s < outage.end_s for outage in self.outages):
            return self.limit
        if any(span.start_s <= window.start_s and window.end_s <= span.end_s for span in self.alone):
            return self.limit
        return self.limit * (2 + sum(window.start_s <= death <= window.end_s for death in self.deaths))


def charges_by_address(answers: Iterable[Answer]) -> dict[str, list[Charge]]:
    """What was charged for certain."""
    found: dict[str, list[Charge]] = defaultdict(list)
    for answer in answers:
        if answer.counted and answer.cost:
            found[answer.address].append(Charge(answer.sent_s, answer.answered_s, answer.cost))
    return found


def overfull(charges: Sequence[Charge], rule: Rule) -> tuple[Span, int] | None:
    """The first window that certainly holds more than it may, and how much that is."""
    ordered = sorted(charges)
    starts = [charge.earliest_s for charge in ordered]
    for index, start_s in enumerate(starts):
        window = Span(start_s, start_s + rule.window_s)
        last = bisect_left(starts, window.end_s)
        held = sum(charge.cost for charge in ordered[index:last] if charge.latest_s < window.end_s)
        if held > rule.limit and held > rule.bound(window):
            return window, held
    return None


def wrongly_refused(answers: Sequence[Answer], rule: Rule) -> Answer | None:
    """The first refusal of one address (`answers` are all of that address) that had room for certain."""
    may_charge = sorted((a for a in answers if a.status != 429 and a.cost), key=lambda a: a.answered_s)
    ends = [answer.answered_s for answer in may_charge]
    for refused in (answer for answer in answers if answer.status == 429):
        window = Span(refused.sent_s - rule.window_s, refused.answered_s)
        if any(outage.start_s < window.end_s and window.start_s < outage.end_s for outage in rule.outages):
            continue
        later = may_charge[bisect_right(ends, window.start_s) :]
        charged = sum(answer.cost for answer in later if answer.sent_s < window.end_s)
        if charged + refused.cost <= rule.limit:
            return refused
    return None

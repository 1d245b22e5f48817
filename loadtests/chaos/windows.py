"""Checks the limits from the client's side: windows above the limit, and wrong rejections.

A request is decided at some time between sending and response. So a window counts only requests that are certainly in
it, and a rejection is wrong only if no request that may have been charged explains it. There are no false alarms; the
shorter the latencies, the stricter the check.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chaos.answers import Answer


class Span(NamedTuple):
    """A time span in Unix seconds."""

    start_s: float
    end_s: float


class Charge(NamedTuple):
    """`cost` units, charged at some time between `start` and `end`."""

    earliest_s: float
    latest_s: float
    cost: int


@dataclass(frozen=True, slots=True)
class Rule:
    """The limit, and the times of its documented exceptions.

    `outages`: the edge could not reach PostgreSQL or was paused. A window across the start or end of one may hold
    twice the limit. `deaths`: the edge was killed during an outage and lost its memory: one limit more. `alone`: one
    edge decided from memory throughout; a window inside holds limit + edges - 1, with one edge running.
    """

    limit: int
    window_s: float
    outages: Sequence[Span] = ()
    deaths: Sequence[float] = ()
    alone: Sequence[Span] = ()

    def bound(self, window: Span) -> int:
        """Return the most that `window` may hold."""
        if not any(outage.start_s < window.end_s and window.start_s < outage.end_s for outage in self.outages):
            return self.limit
        if any(span.start_s <= window.start_s and window.end_s <= span.end_s for span in self.alone):
            return self.limit
        return self.limit * (2 + sum(window.start_s <= death <= window.end_s for death in self.deaths))


def charges_by_address(answers: Iterable[Answer]) -> dict[str, list[Charge]]:
    """Return the certain charges by address."""
    found: dict[str, list[Charge]] = defaultdict(list)
    for answer in answers:
        if answer.counted and answer.cost:
            found[answer.address].append(Charge(answer.sent_s, answer.answered_s, answer.cost))
    return found


def overfull(charges: Sequence[Charge], rule: Rule) -> tuple[Span, int] | None:
    """Return the first window that certainly exceeds its bound, and its content."""
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
    """Return the first rejection that was certainly wrong. `answers` are all of one address."""
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

"""Everything that must hold, judged from what was kept: while the run goes on, and at its end."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chaos.answers import Answer, is_shed
from chaos.faults import Action, Target
from chaos.gemini import Call, flown_twice, over_quota
from chaos.harm import Done
from chaos.watch import Life
from chaos.windows import Rule, Span, charges_by_address, overfull, wrongly_refused
from chaos.yardstick import TOO_SLOW

LIMIT: Final = 20
WINDOW_S: Final = 10.0
NEEDS: Final[dict[str, frozenset[Target]]] = {  # whose disturbance may fail a request of this path
    "/predict": frozenset({"edge-limiter", "inference"}),
    "/predict/batch": frozenset({"edge-limiter", "inference"}),
    "/analyze/performance": frozenset({"edge-limiter", "analyst", "metrics", "postgres"}),
    "/metrics/aggregated": frozenset({"edge-limiter", "metrics", "postgres"}),
    "/metrics/count": frozenset({"edge-limiter", "metrics", "postgres"}),
}
JOURNAL_FULL: Final = "on record"  # in the words with which inference then refuses
_OF_TIME: Final = (502, 503, 504)
_OUTAGES: Final[tuple[Action, ...]] = ("stop", "slow")
_NOBODY_LISTENS: Final = "ClientConnectorError"
_SHOWN: Final = 5
_NOTHING: Final = Span(0.0, 0.0)


@dataclass
class Evidence:
    """What was kept of the run, or of its end: then nothing is known of the time `before` it.

    `degraded` is what the edge's log says of itself.
    """

    answers: list[Answer]
    done: list[Done] = field(default_factory=list)
    current: list[tuple[Span, Target]] = field(default_factory=list)
    degraded: list[Span] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    before: Span = _NOTHING
    slowness: Callable[[Span], float] = lambda _: 1.0

    def spans(self, *targets: Target, actions: Sequence[Action] = ()) -> list[Span]:
        """When these were disturbed, the fault that is going on included."""
        found = [
            done.disturbed
            for done in self.done
            if done.fault.target in targets and (not actions or done.fault.action in actions)
        ]
        return [*found, *(span for span, target in self.current if target in targets)]

    def deaths(self, target: Target) -> list[float]:
        return [
            done.span.start_s for done in self.done if done.fault.target == target and done.fault.action in ("kill",)
        ]

    def rule(self) -> Rule:
        outages = [*self.spans("postgres"), *self.spans("edge-limiter", actions=_OUTAGES), *self.degraded, self.before]
        return Rule(LIMIT, WINDOW_S, outages, [end for done in self.done for end in ends(done)])


def ends(done: Done) -> list[float]:
    """When this fault ended the edge's process, and its memory of what it admitted."""
    is_end = done.fault.target == "edge-limiter" and done.fault.action in ("kill", "restart")
    return [done.span.start_s] if is_end else []


def limits(evidence: Evidence) -> list[str]:
    """Windows that hold too much, and refusals that had room."""
    rule, wrong = evidence.rule(), []
    for address, charges in charges_by_address(evidence.answers).items():
        if found := overfull(charges, rule):
            window, held = found
            wrong.append(
                f"{address}: {held} in {WINDOW_S:.0f} s from {window.start_s:.2f}, at most {rule.bound(window)}"
            )
    by_address: dict[str, list[Answer]] = defaultdict(list)
    for answer in evidence.answers:
        by_address[answer.address].append(answer)
    for address, answers in by_address.items():
        if refused := wrongly_refused(answers, rule):
            wrong.append(f"{address}: {refused.id} was refused with room left")
    return wrong


def documents(evidence: Evidence) -> list[str]:
    """Answers that are not what a client was promised."""
    return [f"{answer.path} {answer.id}: {answer.fault}" for answer in evidence.answers if answer.fault]


def availability(evidence: Evidence) -> list[str]:
    """Failures that no disturbance of what the path needs explains.

    The journal may be full while Redis is away, and a busy machine may shed load; one that starves its programs is
    not judged.
    """
    full = evidence.spans("valkey")
    wrong = []
    for answer in evidence.answers:
        if answer.status in (200, 429) or is_shed(answer) or is_starved(evidence, answer):
            continue
        span = Span(answer.sent_s, answer.answered_s)
        needed = evidence.spans(*NEEDS[answer.path])
        if answer.status == 503 and JOURNAL_FULL in answer.detail:
            needed = [*needed, *full]
        if not any(one.start_s <= span.end_s and span.start_s <= one.end_s for one in needed):
            said = answer.status or "no answer"
            wrong.append(f"{answer.path} {answer.id}: {said} {answer.detail} though nothing it needs was disturbed")
    return wrong


def is_starved(evidence: Evidence, answer: Answer) -> bool:
    """Failed in time, somewhere, while the machine gave its programs a fraction of the time they wanted."""
    return answer.status in _OF_TIME and evidence.slowness(Span(answer.sent_s, answer.answered_s)) >= TOO_SLOW


def drained(evidence: Evidence) -> list[str]:
    """Requests that an edge, asked to stop while nothing else broke, took and did not answer."""
    wrong = []
    for done in evidence.done:
        alone = sum(other.span == done.span for other in evidence.done) == 1
        if not (alone and done.fault.target == "edge-limiter" and done.fault.action == "restart"):
            continue
        wrong += [
            f"{answer.path} {answer.id}: {answer.detail} as the edge was asked to stop"
            for answer in evidence.answers
            if answer.status is None
            and answer.detail != _NOBODY_LISTENS
            and answer.sent_s <= done.span.end_s
            and done.span.start_s <= answer.answered_s
        ]
    return wrong


def gemini(evidence: Evidence) -> list[str]:
    stops = evidence.spans("analyst", "valkey")
    found = [over_quota(evidence.calls, evidence.deaths("valkey"), stops), flown_twice(evidence.calls, stops)]
    return [line for line in found if line]


def recovery(evidence: Evidence) -> list[str]:
    return [str(done) for done in evidence.done if (not done.is_in_time and done.is_judged) or "NOT" in done.note]


def slowest(evidence: Evidence) -> str:
    """The longest recovery for each sort of fault."""
    longest: dict[str, float] = {}
    for done in evidence.done:
        seconds = float("inf") if done.recovery_s is None else done.recovery_s
        longest[done.fault.action] = max(seconds, longest.get(done.fault.action, 0.0))
    left_out = sum(not done.is_in_time and not done.is_judged for done in evidence.done)
    return f"{len(evidence.done)} faults, {left_out} not judged; longest, s: " + ", ".join(
        f"{a} {s:.1f}" for a, s in sorted(longest.items())
    )


def unexplained(evidence: Evidence) -> int:
    """Stretches without PostgreSQL, by the edge's log, in which no fault was going on: the machine was too slow."""
    faults = [done.disturbed for done in evidence.done]
    return sum(
        not any(fault.start_s <= one.end_s and one.start_s <= fault.end_s for fault in faults)
        for one in evidence.degraded
    )


def leaks(lives: Sequence[Life]) -> list[str]:
    return [f"{life.name} in {life.seconds:.0f} s: {life.leak}" for life in lives if life.leak]


def statuses(answers: Sequence[Answer]) -> str:
    counted = Counter("none" if answer.status is None else str(answer.status) for answer in answers)
    return ", ".join(f"{status}: {count:,}" for status, count in sorted(counted.items()))


def shown(name: str, wrong: Sequence[str], figure: str = "") -> list[str]:
    """A line of the final table, and below it the first few things that are wrong."""
    state = f"BROKEN ({len(wrong)})" if wrong else "holds"
    return [f"  {name:58} {state:12} {figure}", *(f"      {line}" for line in wrong[:_SHOWN])]

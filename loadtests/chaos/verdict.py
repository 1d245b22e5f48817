"""Checks every promise against the recorded evidence, during the run and at its end."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from chaos.answers import MOST_SHED, Answer, is_journal_full, is_shed
from chaos.faults import Action, Target
from chaos.gemini import Call, flown_twice, over_quota
from chaos.harm import Done
from chaos.system.watch import SHORTEST_S, WARM_UP_S, Life
from chaos.system.yardstick import SLIGHTLY, TOO_SLOW
from chaos.windows import Rule, Span, charges_by_address, overfull, wrongly_refused

LIMIT: Final = 20
WINDOW_S: Final = 10.0
NEEDS: Final[dict[str, frozenset[Target]]] = {  # a disturbance of these may fail a request of this path
    "/predict": frozenset({"edge-limiter", "inference"}),
    "/predict/batch": frozenset({"edge-limiter", "inference"}),
    "/analyze/performance": frozenset({"edge-limiter", "analyst", "metrics", "postgres"}),
    "/metrics/aggregated": frozenset({"edge-limiter", "metrics", "postgres"}),
    "/metrics/count": frozenset({"edge-limiter", "metrics", "postgres"}),
}
PREDICTIONS: Final = ("/predict", "/predict/batch")
MAX_INCONCLUSIVE: Final = 0.2  # share of the faults
_OF_TIME: Final = (502, 503, 504)
_STOPS: Final[tuple[Action, ...]] = ("stop", "slow")
_NOBODY_LISTENS: Final = "ClientConnectorError"
_SHOWN: Final = 5
_NOTHING: Final = Span(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one promise: what broke it, or why it is inconclusive. `figure` is for display."""

    broken: Sequence[str]
    figure: str = ""
    inconclusive: Sequence[str] = ()


@dataclass
class Evidence:
    """The evidence of the run, or of its last part, which starts at `before`.

    `missed` are faults without effect. `degraded` comes from the edge's log.
    """

    answers: list[Answer]
    done: list[Done] = field(default_factory=list)
    missed: list[Done] = field(default_factory=list)
    current: list[tuple[Span, Target]] = field(default_factory=list)
    degraded: list[Span] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    before: Span = _NOTHING
    slowness: Callable[[Span], float] = lambda _: 1.0

    def spans(self, *targets: Target, actions: Sequence[Action] = ()) -> list[Span]:
        """Return when these targets were disturbed, including an active fault."""
        found = [
            done.disturbed
            for done in self.done
            if done.fault.target in targets and (not actions or done.fault.action in actions)
        ]
        return [*found, *(span for span, target in self.current if target in targets)]

    def deaths(self, target: Target) -> list[float]:
        return [done.span.start_s for done in self.done if done.fault.target == target and done.fault.action == "kill"]

    def stops(self, target: Target) -> list[Span]:
        """Return when the target was paused, without its recovery."""
        found = [done.span for done in self.done if done.fault.target == target and done.fault.action in _STOPS]
        return [*found, *(span for span, other in self.current if other == target)]

    def rule(self) -> Rule:
        outages = [*self.spans("postgres"), *self.spans("edge-limiter", actions=_STOPS), *self.degraded, self.before]
        return Rule(LIMIT, WINDOW_S, outages, [end for done in self.done for end in ends(done)], self.degraded)


def ends(done: Done) -> list[float]:
    """Return when this fault ended the edge's process and its memory of admissions."""
    is_end = done.fault.target == "edge-limiter" and done.fault.action in ("kill", "restart")
    return [done.span.start_s] if is_end else []


def limits(evidence: Evidence) -> list[str]:
    """Return windows above the limit, and wrong rejections."""
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
    """Return responses with a wrong form."""
    return [f"{answer.path} {answer.id}: {answer.fault}" for answer in evidence.answers if answer.fault]


def availability(evidence: Evidence) -> list[str]:
    """Return failures that no disturbance of the path's dependencies explains.

    The journal may be full while Redis is down, and a busy machine may shed load. A starved machine is inconclusive.
    """
    full = evidence.spans("valkey")
    wrong = []
    for answer in evidence.answers:
        if answer.status in (200, 429) or is_shed(answer) or is_starved(evidence, answer):
            continue
        span = Span(answer.sent_s, answer.answered_s)
        needed = evidence.spans(*NEEDS[answer.path])
        if is_journal_full(answer):
            needed = [*needed, *full]
        if not any(_meet(one, span) for one in needed):
            said = answer.status or "no answer"
            wrong.append(f"{answer.path} {answer.id}: {said} {answer.detail} though nothing it needs was disturbed")
    return wrong


def is_starved(evidence: Evidence, answer: Answer) -> bool:
    """Whether a request failed while the machine was starved of processor time."""
    return answer.status in _OF_TIME and evidence.slowness(Span(answer.sent_s, answer.answered_s)) >= TOO_SLOW


def shed(evidence: Evidence) -> list[str]:
    """Return whether too much load was shed without faults on a machine that is not slow."""
    disturbed = [done.disturbed for done in evidence.done]
    calm, refused = 0, 0
    for answer in evidence.answers:
        span = Span(answer.sent_s, answer.answered_s)
        if answer.path not in PREDICTIONS or any(_meet(span, one) for one in disturbed):
            continue
        if evidence.slowness(span) < SLIGHTLY:
            calm, refused = calm + 1, refused + is_shed(answer)
    if refused <= calm * MOST_SHED:
        return []
    return [f"{refused:,} of {calm:,} predictions were shed, though nothing was disturbed and the machine was not slow"]


def restarts(evidence: Evidence) -> list[Done]:
    """Return when the edge was stopped gracefully without another fault."""
    return [
        done
        for done in evidence.done
        if done.fault.target == "edge-limiter"
        and done.fault.action == "restart"
        and sum(other.span == done.span for other in evidence.done) == 1
    ]


def drained(evidence: Evidence) -> list[str]:
    """Return requests that a gracefully stopped edge accepted and did not answer."""
    wrong = []
    for done in restarts(evidence):
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
    """Return quota and single-flight errors.

    A paused analyst with a slot and a killed Redis excuse the quota. Any disturbance of either excuses a second
    computation.
    """
    stops = evidence.stops("analyst")
    found = [
        over_quota(evidence.calls, evidence.deaths("valkey"), stops),
        flown_twice(evidence.calls, evidence.spans("analyst", "valkey")),
    ]
    return [line for line in found if line]


def recovery(evidence: Evidence) -> Finding:
    """Return slow recoveries. No recovery at all is broken on any machine."""
    broken = [str(done) for done in evidence.done if (done.is_conclusive and not done.is_in_time) or done.wrong]
    open_ = [str(done) for done in [*evidence.done, *evidence.missed] if not done.is_conclusive]
    faults = len(evidence.done) + len(evidence.missed)
    figure = f"{faults} faults, {len(open_)} inconclusive; longest, s: {_slowest(evidence.done)}"
    return Finding(broken, figure, open_ if len(open_) > faults * MAX_INCONCLUSIVE else ())


def _slowest(faults: Sequence[Done]) -> str:
    """Return the longest recovery of each kind of fault."""
    longest: dict[str, float] = {}
    for done in faults:
        seconds = float("inf") if done.recovery_s is None else done.recovery_s
        longest[done.fault.action] = max(seconds, longest.get(done.fault.action, 0.0))
    return ", ".join(f"{action} {seconds:.1f}" for action, seconds in sorted(longest.items()))


def unexplained(evidence: Evidence) -> int:
    """Return outages in the edge's log without an active fault: the machine was too slow."""
    faults = [done.disturbed for done in evidence.done]
    return sum(not any(_meet(fault, one) for fault in faults) for one in evidence.degraded)


def leaks(lives: Sequence[Life], names: Sequence[str]) -> Finding:
    """Return leaks. All of `names` must have a life long enough to compare."""
    seen = {life.name for life in lives}
    shortest_s = WARM_UP_S + SHORTEST_S
    return Finding(
        [f"{life.name} in {life.seconds:.0f} s: {life.leak}" for life in lives if life.leak],
        f"{len(lives)} lives of {len(seen)} processes",
        [f"{name} was not seen in calm for {shortest_s:.0f} s of one life" for name in names if name not in seen],
    )


def statuses(answers: Sequence[Answer]) -> str:
    counted = Counter("none" if answer.status is None else str(answer.status) for answer in answers)
    return ", ".join(f"{status}: {count:,}" for status, count in sorted(counted.items()))


def shown(name: str, finding: Finding) -> list[str]:
    """Return a line of the final table, and the first few errors or open questions below it."""
    lines = [*finding.broken, *finding.inconclusive]
    state = f"BROKEN ({len(finding.broken)})" if finding.broken else "inconclusive" if lines else "holds"
    return [f"  {name:58} {state:12} {finding.figure}", *(f"      {line}" for line in lines[:_SHOWN])]


def _meet(one: Span, other: Span) -> bool:
    return one.start_s <= other.end_s and other.start_s <= one.end_s

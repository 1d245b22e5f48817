"""The draft written by rules: one finding and one recommendation per observation; computes nothing, types no figure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from analyst.facts.checks import Kind, Observation
from analyst.facts.fact import Fact
from analyst.facts.facts import Facts
from analyst.grounding.grounding import MAX_ITEMS
from analyst.report.models import Draft, Evidence, Finding, Priority, Reading, Recommendation, Severity, Status

_PRIORITY: Final[dict[Severity, Priority]] = {"critical": "high", "warning": "medium", "info": "low"}

_SUMMARY: Final[dict[Status, str]] = {
    "critical": "The service is critical: see the findings.",
    "degraded": "The service is degraded: see the findings.",
    "healthy": "The service is healthy: the checks found nothing to act on.",
    "insufficient_data": "There is too little traffic in this window to judge the service.",
}
_INFORMED: Final = "The service is healthy: the findings are for information."
_BREACHED: Final = "The service is healthy, but a threshold is breached: see the findings."
_NOT_ALL: Final = "There are more findings than this report lists."
_HEADLINES: Final[tuple[tuple[str, str], ...]] = (
    ("requests", "Requests in the window: {%s}."),
    ("error_rate", "The error rate is {%s}."),
    ("latency_ms.p95", "The p95 latency is {%s}."),
)


@dataclass(slots=True)
class _Citations:
    """Gives each number one id, however often it is cited."""

    ids: dict[tuple[str, Reading], str] = field(default_factory=dict)

    def cite(self, fact: Fact, reading: Reading) -> str | None:
        """The id of this number, or None where the fact has none."""
        if fact.read(reading) is None:
            return None
        return self.ids.setdefault((fact.id, reading), f"e{len(self.ids) + 1}")

    def evidence(self) -> list[Evidence]:
        return [Evidence(id=name, metric=metric, window=reading) for (metric, reading), name in self.ids.items()]


@dataclass(frozen=True, slots=True)
class _Prose:
    title: str
    detail: str
    evidence: list[str]
    action: str
    rationale: str


def draft_by_rules(facts: Facts, observations: list[Observation], status: Status) -> Draft:
    """A report without a model: dull, complete but for what is beyond MAX_ITEMS, and held to the same checker."""
    citations = _Citations()
    summary = [_opening(facts, observations, status)]
    for metric, sentence in _HEADLINES:
        if name := citations.cite(facts[metric], "current"):
            summary.append(sentence % name)
    if len(observations) > MAX_ITEMS:
        summary.append(_NOT_ALL)
    findings, recommendations = [], []
    for observation in observations[:MAX_ITEMS]:
        prose = _WRITERS[observation.kind](observation.fact, citations)
        findings.append(
            Finding(
                title=prose.title,
                severity=observation.severity,
                category=observation.category,
                detail=prose.detail,
                evidence=prose.evidence,
            )
        )
        if prose.action:
            recommendations.append(
                Recommendation(
                    action=prose.action,
                    priority=_PRIORITY[observation.severity],
                    rationale=prose.rationale,
                    evidence=prose.evidence,
                )
            )
    return Draft(
        summary=" ".join(summary), evidence=citations.evidence(), findings=findings, recommendations=recommendations
    )


def _opening(facts: Facts, observations: list[Observation], status: Status) -> str:
    """What only informs leaves the service healthy, and is not nothing."""
    if status == "healthy" and facts.breached:
        return _BREACHED
    return _INFORMED if status == "healthy" and observations else _SUMMARY[status]


def _cite(citations: _Citations, fact: Fact, *readings: Reading) -> list[str]:
    return [name for reading in readings if (name := citations.cite(fact, reading)) is not None]


def _breach(fact: Fact, citations: _Citations) -> _Prose:
    current, limit = _cite(citations, fact, "current", "threshold")
    side = "above" if fact.rule is not None and fact.rule.rule.above is not None else "below"
    window = fact.rule.rule.window if fact.rule is not None else ""
    return _Prose(
        title=f"A threshold on {fact.name} is breached",
        detail=f"Over the last {window} the {fact.name} is {{{current}}}, {side} its limit of {{{limit}}}.",
        evidence=[current, limit],
        action=f"Investigate the {fact.name} before anything else.",
        rationale=f"The limit of {{{limit}}} was set for it, and it is at {{{current}}}.",
    )


def _latency_change(fact: Fact, citations: _Citations) -> _Prose:
    previous, current, change = _cite(citations, fact, "previous", "current", "delta_pct")
    rose = fact.direction > 0
    verb = "rose" if rose else "fell"
    return _Prose(
        title=f"The {fact.name} {verb}",
        detail=f"The {fact.name} {verb} by {{{change}}}, from {{{previous}}} to {{{current}}}.",
        evidence=[previous, current, change],
        action="Compare queue time with compute time, and check whether a replica is saturated." if rose else "",
        rationale=f"The {fact.name} is slower than in the window before, by {{{change}}}." if rose else "",
    )


def _rate_change(fact: Fact, citations: _Citations) -> _Prose:
    previous, current, change = _cite(citations, fact, "previous", "current", "delta_abs")
    rose = fact.direction > 0
    verb = "rose" if rose else "fell"
    look = "Check which outcomes make up the errors." if fact.id == "error_rate" else "Check which clients are limited."
    return _Prose(
        title=f"The {fact.name} {verb}",
        detail=f"The {fact.name} {verb} by {{{change}}}, from {{{previous}}} to {{{current}}}.",
        evidence=[previous, current, change],
        action=look if rose else "",
        rationale=f"The {fact.name} is worse than in the window before, by {{{change}}}." if rose else "",
    )


def _volume_change(fact: Fact, citations: _Citations) -> _Prose:
    previous, current, change = _cite(citations, fact, "previous", "current", "delta_pct")
    rose = fact.direction > 0
    verb = "rose" if rose else "fell"
    return _Prose(
        title=f"The number of requests {verb}",
        detail=f"Requests {verb} by {{{change}}}, from {{{previous}}} to {{{current}}}.",
        evidence=[previous, current, change],
        action="Watch latency while traffic stays high." if rose else "Check whether clients still reach the service.",
        rationale=f"Requests {verb} by {{{change}}} against the window before.",
    )


def _confidence_change(fact: Fact, citations: _Citations) -> _Prose:
    previous, current, change = _cite(citations, fact, "previous", "current", "delta_abs")
    rose = fact.direction > 0
    verb = "rose" if rose else "fell"
    return _Prose(
        title=f"The {fact.name} {verb}",
        detail=f"The {fact.name} {verb} by {{{change}}}, from {{{previous}}} to {{{current}}}.",
        evidence=[previous, current, change],
        action="" if rose else "Compare recent inputs with those that the model was trained on.",
        rationale="" if rose else f"The {fact.name} fell by {{{change}}} against the window before.",
    )


def _label_shift(fact: Fact, citations: _Citations) -> _Prose:
    previous, current, change = _cite(citations, fact, "previous", "current", "delta_abs")
    verb = "rose" if fact.direction > 0 else "fell"
    return _Prose(
        title="The label mix changed",
        detail=f"The {fact.name} {verb} by {{{change}}}, from {{{previous}}} to {{{current}}}.",
        evidence=[previous, current, change],
        action="Check whether the inputs changed.",
        rationale=f"The {fact.name} {verb} by {{{change}}} against the window before.",
    )


def _drift(fact: Fact, citations: _Citations) -> _Prose:
    (drift,) = _cite(citations, fact, "current")
    return _Prose(
        title=f"There is {fact.name}",
        detail=f"Against the reference the {fact.name} is {{{drift}}}.",
        evidence=[drift],
        action="Compare recent inputs with earlier ones.",
        rationale=f"With a {fact.name} of {{{drift}}}, what was known of the model may not hold for these inputs.",
    )


def _tail(fact: Fact, citations: _Citations) -> _Prose:
    (ratio,) = _cite(citations, fact, "current")
    return _Prose(
        title="The latency tail is long",
        detail=f"The tail-to-median ratio is {{{ratio}}}.",
        evidence=[ratio],
        action="Look at the slowest requests by themselves.",
        rationale=f"With a tail-to-median ratio of {{{ratio}}}, the median hides what the slowest requests see.",
    )


def _error_class(fact: Fact, citations: _Citations) -> _Prose:
    (count,) = _cite(citations, fact, "current")
    return _Prose(
        title=f"There are {fact.name}",
        detail=f"Count of {fact.name} in the window: {{{count}}}.",
        evidence=[count],
        action=f"Investigate the {fact.name}.",
        rationale=f"Their count is {{{count}}}, a share worth acting on.",
    )


_WRITERS: Final[dict[Kind, Callable[[Fact, _Citations], _Prose]]] = {
    "breach": _breach,
    "latency_change": _latency_change,
    "rate_change": _rate_change,
    "volume_change": _volume_change,
    "tail": _tail,
    "error_class": _error_class,
    "confidence_change": _confidence_change,
    "label_shift": _label_shift,
    "drift": _drift,
}

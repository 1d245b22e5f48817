"""Selection → the text of a report. Code writes every sentence but the interpretation."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from analyst.facts.checks import Observation
from analyst.facts.incident import Incident
from analyst.report import actions
from analyst.report.format import show
from analyst.report.hypotheses import BY_KEY
from analyst.report.models import Figure, Finding, Recommendation, Severity, Status
from analyst.report.selection import NONE, FindingChoice, Offer, Selection, check_interpretation
from analyst.report.templates import state

_WORDS: Final[dict[Status, str]] = {"critical": "critical", "degraded": "degraded", "healthy": "healthy"}
_OVERVIEW: Final = (("requests", "requests"), ("error_rate", "error rate"), ("latency_ms.p95", "p95 latency"))


@dataclass(frozen=True, slots=True)
class Written:
    """The parts of a report that come from a selection."""

    summary: str
    figures: list[Figure]
    findings: list[Finding]
    recommendations: list[Recommendation]
    interpretation: str | None


def write(offer: Offer, selection: Selection, incident: Incident | None) -> Written:
    """Render a valid selection."""
    findings = [_finding(offer, choice) for choice in selection.findings]
    summary, cited = _summary(offer, selection, incident)
    cited |= {figure_id for finding in findings for figure_id in finding.evidence}
    interpretation = check_interpretation(selection.interpretation, offer.book)
    if interpretation is not None:
        cited |= {name for name in offer.book.by_id if f"{{{name}}}" in selection.interpretation}
    return Written(
        summary=summary,
        figures=[figure for figure_id, figure in offer.book.by_id.items() if figure_id in cited],
        findings=findings,
        recommendations=[
            Recommendation(
                action=actions.BY_KEY[item.action].sentence,
                priority=item.priority,
                how=actions.BY_KEY[item.action].how,
            )
            for item in selection.actions
        ],
        interpretation=interpretation,
    )


def _finding(offer: Offer, choice: FindingChoice) -> Finding:
    members = [offer.observations[name] for name in choice.observations]
    statements = [state(member, offer.book) for member in members]
    hypothesis = BY_KEY.get(choice.hypothesis)
    return Finding(
        title=statements[0].title,
        severity=_worst(offer, choice),
        category=members[0].category,
        detail=" ".join(statement.detail for statement in statements),
        evidence=list(dict.fromkeys(name for statement in statements for name in statement.evidence)),
        cause=hypothesis.sentence if hypothesis else None,
        confidence=choice.confidence if hypothesis else None,
    )


def _worst(offer: Offer, choice: FindingChoice) -> Severity:
    """Observations are in the order of their severity."""
    return next(each.severity for name, each in offer.observations.items() if name in choice.observations)


def _summary(offer: Offer, selection: Selection, incident: Incident | None) -> tuple[str, set[str]]:
    if offer.status == "insufficient_data":
        return "There is too little traffic in this window to evaluate the service.", set()
    opening = f"The service is {_WORDS[offer.status]}{_span(incident)}."
    headline = offer.observations.get(selection.headline)
    overview, cited = _overview(offer)
    if headline is None:
        return f"{opening} The checks found nothing to act on. {overview}".rstrip(), cited
    statement = state(headline, offer.book)
    cited |= set(statement.evidence)
    sentences = [opening, statement.detail]
    finding = next((each for each in selection.findings if selection.headline in each.observations), None)
    if finding is not None and finding.hypothesis != NONE:
        sentences.append(f"Likely cause: {_lower(BY_KEY[finding.hypothesis].sentence)}")
    if finding is not None:
        evidence = [state(each, offer.book) for each in _explanations(offer, finding, selection.headline)]
        sentences += [each.detail for each in evidence[:2]]
        cited |= {name for each in evidence[:2] for name in each.evidence}
    return " ".join(sentences), cited


def _explanations(offer: Offer, finding: FindingChoice, headline: str) -> list[Observation]:
    return [
        each
        for name, each in offer.observations.items()
        if name in finding.observations and name != headline and each.kind in ("explanation", "route_errors")
    ]


def _overview(offer: Offer) -> tuple[str, set[str]]:
    found = [(offer.book.find(offer.facts[metric], "current"), name) for metric, name in _OVERVIEW]
    known = [(figure, name) for figure, name in found if figure is not None]
    parts = [f"{name} {show(figure)}" for figure, name in known]
    return f"In this window: {', '.join(parts)}." if parts else "", {figure.id for figure, _ in known}


def _span(incident: Incident | None) -> str:
    if incident is None:
        return ""
    onset = f"{incident.onset:%H:%M:%S}"
    return f" since {onset} UTC" if incident.end is None else f", from {onset} to {_time(incident.end)} UTC"


def _time(moment: datetime) -> str:
    return f"{moment:%H:%M:%S}"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]

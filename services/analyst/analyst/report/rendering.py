"""Draft + facts → the prose and figures of a report: each reference becomes its number here, and nowhere else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from analyst.facts.facts import Facts, figure
from analyst.grounding import lexicon
from analyst.grounding.claims import is_directed
from analyst.report.models import Draft, Figure, Finding, Recommendation, Unit


@dataclass(frozen=True, slots=True)
class Rendered:
    """The parts of a report that came out of a draft."""

    summary: str
    figures: list[Figure]
    findings: list[Finding]
    recommendations: list[Recommendation]


def render(draft: Draft, facts: Facts) -> Rendered:
    """Resolve a draft that passed the checker; a reference without a figure raises KeyError."""
    figures = [
        found for item in draft.evidence if (found := figure(item.id, facts[item.metric], item.window)) is not None
    ]
    by_id = {item.id: item for item in figures}
    return Rendered(
        summary=_resolve(draft.summary, by_id),
        figures=figures,
        findings=[
            item.model_copy(update={"title": _resolve(item.title, by_id), "detail": _resolve(item.detail, by_id)})
            for item in draft.findings
        ],
        recommendations=[
            item.model_copy(
                update={"action": _resolve(item.action, by_id), "rationale": _resolve(item.rationale, by_id)}
            )
            for item in draft.recommendations
        ],
    )


def show(item: Figure, *, signed: bool = True) -> str:
    """The figure as people read it; a change carries its sign unless words say the direction."""
    value = item.value
    is_delta = item.window in ("delta_abs", "delta_pct")
    sign = ("+" if value > 0 else "") if is_delta and signed else ""
    if is_delta and not signed:
        value = abs(value)
    if item.unit == "share" and is_delta:
        return f"{sign}{number(value * 100)} percentage points"
    return sign + _with_unit(value, item.unit)


def number(value: float) -> str:
    """Four significant digits, thousands separated, never an exponent."""
    if not math.isfinite(value):  # a limit near the end of what a float holds, in percent
        return "∞" if value > 0 else "-∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    magnitude = 0
    while abs(value) >= 10 ** (magnitude + 1):
        magnitude += 1
    digits = max(0, 3 - magnitude)
    while abs(value) < 10.0 ** (3 - digits) and digits < 9:  # small values keep their digits
        digits += 1
    return f"{value:,.{digits}f}".rstrip("0").rstrip(".") if digits else f"{value:,.0f}"


def _with_unit(value: float, unit: Unit) -> str:
    if unit == "share":
        return f"{number(value * 100)}%"
    suffix: Mapping[Unit, str] = {"percent": "%", "ms": " ms", "per_s": "/s", "ratio": "×"}
    return number(value) + suffix.get(unit, "")


def _resolve(text: str, figures: Mapping[str, Figure]) -> str:
    sentences: Sequence[str] = lexicon.SENTENCE_END.split(text)
    return " ".join(_resolve_sentence(sentence, figures) for sentence in sentences)


def _resolve_sentence(sentence: str, figures: Mapping[str, Figure]) -> str:
    signed = not is_directed(sentence)
    return lexicon.REFERENCE.sub(lambda match: show(figures[match[1]], signed=signed), sentence)

"""Deterministic checks: what is worth saying about the facts, how bad it is, and the status; writes no prose."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from analyst.facts.fact import Fact
from analyst.facts.facts import TAIL_RATIO, Facts
from analyst.report.models import Category, Severity, Status

Kind = Literal[
    "breach",
    "latency_change",
    "rate_change",
    "volume_change",
    "tail",
    "error_class",
    "confidence_change",
    "label_shift",
    "drift",
]

ENOUGH: Final = 30
"""Requests below which a window says nothing by itself."""
ENOUGH_TO_COMPARE: Final = 100
"""Observations that both windows need before a change between them counts."""
LATENCY_CHANGE_PCT: Final = 25.0
VOLUME_CHANGE_PCT: Final = 50.0
RATE_CHANGE: Final = {"error_rate": 0.01, "limited_rate": 0.05}
TAIL_RATIO_LIMIT: Final = 5.0
ERROR_CLASS_SHARE: Final = 0.01
CONFIDENCE_CHANGE: Final = 0.05
LABEL_SHIFT: Final = 0.10
LABEL_SHIFT_WARNING: Final = 0.25
DRIFT: Final = 0.10
DRIFT_WARNING: Final = 0.25
"""Of the population stability index beyond chance: the usual borders of a distribution that moved, and moved far."""
ERROR_CLASS_CRITICAL_SHARE: Final = 0.05
COMPARED_LATENCIES: Final = ("latency_ms.p95", "latency_ms.p50")

_CATEGORIES: Final[dict[str, Category]] = {
    "latency_ms": "latency",
    "error_rate": "errors",
    "confidence": "confidence",
    "drift": "data",
}
_RANK: Final[dict[Severity, int]] = {"critical": 0, "warning": 1, "info": 2}


@dataclass(frozen=True, slots=True)
class Observation:
    """One check that found something, and the fact it is about."""

    kind: Kind
    severity: Severity
    category: Category
    fact: Fact


def run_checks(facts: Facts) -> list[Observation]:
    """What the checks found, the worst first."""
    found = [
        *_breaches(facts),
        *_error_classes(facts),
        *_latency_changes(facts),
        *_rate_changes(facts),
        *_volume_change(facts),
        *_tail(facts),
        *_confidence_change(facts),
        *_label_shift(facts),
        *_drift(facts),
    ]
    return sorted(found, key=lambda observation: _RANK[observation.severity])


def status_of(facts: Facts, observations: list[Observation]) -> Status:
    """Too little data is only an answer when nothing is known to be wrong."""
    severities = {observation.severity for observation in observations}
    if "critical" in severities:
        return "critical"
    if "warning" in severities:
        return "degraded"
    return "healthy" if has_enough(facts) else "insufficient_data"


def has_enough(facts: Facts) -> bool:
    return facts["requests"].n >= ENOUGH


def category_of(metric: str) -> Category:
    """The part of the service that a metric speaks of."""
    return _CATEGORIES.get(metric.partition(".")[0], "traffic")


def _breaches(facts: Facts) -> Iterator[Observation]:
    for fact in facts.breached:
        if fact.rule is not None and fact.current is not None:
            yield Observation("breach", fact.rule.rule.severity, category_of(fact.metric), fact)


def _latency_changes(facts: Facts) -> Iterator[Observation]:
    for metric in COMPARED_LATENCIES:
        fact = facts[metric]
        change = _comparable_change(fact)
        if change is not None and abs(change) >= LATENCY_CHANGE_PCT:
            yield Observation("latency_change", "warning" if change > 0 else "info", "latency", fact)
            return  # the tail speaks for the median: one finding for one change


def _rate_changes(facts: Facts) -> Iterator[Observation]:
    for metric, limit in RATE_CHANGE.items():
        fact = facts[metric]
        delta = fact.read("delta_abs")
        if delta is not None and fact.compared_n >= ENOUGH_TO_COMPARE and abs(delta.value) >= limit:
            yield Observation("rate_change", "warning" if delta.value > 0 else "info", category_of(metric), fact)


def _volume_change(facts: Facts) -> Iterator[Observation]:
    fact = facts["requests"]
    change = fact.read("delta_pct")
    if change is None or max(fact.n, fact.previous_n) < ENOUGH_TO_COMPARE:
        return
    if abs(change.value) >= VOLUME_CHANGE_PCT:
        yield Observation("volume_change", "warning" if change.value < 0 else "info", "traffic", fact)


def _tail(facts: Facts) -> Iterator[Observation]:
    fact = facts[TAIL_RATIO]
    if fact.current is not None and fact.n >= ENOUGH_TO_COMPARE and fact.current >= TAIL_RATIO_LIMIT:
        yield Observation("tail", "info", "latency", fact)


def _confidence_change(facts: Facts) -> Iterator[Observation]:
    fact = facts["confidence.mean"]
    delta = fact.read("delta_abs")
    if delta is not None and fact.compared_n >= ENOUGH_TO_COMPARE and abs(delta.value) >= CONFIDENCE_CHANGE:
        yield Observation("confidence_change", "warning" if delta.value < 0 else "info", "confidence", fact)


def _label_shift(facts: Facts) -> Iterator[Observation]:
    """The label whose share changed most: what one gains, the others lose."""
    changes = [(abs(delta.value), fact) for fact in facts.labels if (delta := fact.read("delta_abs")) is not None]
    change, fact = max(changes, key=lambda item: item[0], default=(0.0, None))
    if fact is not None and fact.compared_n >= ENOUGH_TO_COMPARE and change >= LABEL_SHIFT:
        yield Observation("label_shift", "warning" if change >= LABEL_SHIFT_WARNING else "info", "data", fact)


def _drift(facts: Facts) -> Iterator[Observation]:
    for fact in facts.drifts:
        if fact.current is not None and fact.compared_n >= ENOUGH_TO_COMPARE and fact.current >= DRIFT:
            yield Observation("drift", "warning" if fact.current >= DRIFT_WARNING else "info", "data", fact)


def _error_classes(facts: Facts) -> Iterator[Observation]:
    judged = facts["error_rate"].n  # rate-limited requests are not errors
    for fact in facts.errors:
        share = (fact.current or 0.0) / judged if judged >= ENOUGH else 0.0
        if share >= ERROR_CLASS_SHARE:
            severity: Severity = "critical" if share >= ERROR_CLASS_CRITICAL_SHARE else "warning"
            yield Observation("error_class", severity, "errors", fact)


def _comparable_change(fact: Fact) -> float | None:
    change = fact.read("delta_pct")
    return None if change is None or fact.compared_n < ENOUGH_TO_COMPARE else change.value

"""Deterministic checks of the facts: observations, their severities, and the resulting status."""

from collections.abc import Callable, Iterator
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
    "route_errors",
    "confidence_change",
    "label_shift",
    "drift",
    "explanation",
]

ENOUGH: Final = 30
"""Requests that a window needs before its error classes count."""
ENOUGH_TO_COMPARE: Final = 100
"""Observations that both windows need before a change between them counts."""
LATENCY_CHANGE_PCT: Final = 25.0
VOLUME_CHANGE_PCT: Final = 50.0
RATE_CHANGE: Final = {"error_rate": 0.01, "limited_rate": 0.05}
TAIL_RATIO_LIMIT: Final = 5.0
ERROR_CLASS_SHARE: Final = 0.01
ERROR_CLASS_CRITICAL_SHARE: Final = 0.05
ROUTE_SHARE: Final = 0.5
CONFIDENCE_CHANGE: Final = 0.05
LABEL_SHIFT: Final = 0.10
LABEL_SHIFT_WARNING: Final = 0.25
DRIFT: Final = 0.10
DRIFT_WARNING: Final = 0.25
"""Of the population stability index beyond chance: the usual limits of a moderate and a large shift."""
EXPLANATION_CHANGE_PCT: Final = 50.0
COMPARED_LATENCIES: Final = ("latency_ms.p95", "latency_ms.p50")
EXPLANATION_SIGNALS: Final = {
    "queue_ms.p95": "queue",
    "compute_ms.p95": "compute",
    "tokens.p95": "tokens",
    "cached_share": "cache",
}
"""Metrics that explain a change of latency, and their signals."""

_CATEGORIES: Final[dict[str, Category]] = {
    "latency_ms": "latency",
    "error_rate": "errors",
    "confidence": "confidence",
    "drift": "data",
}
_SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "warning", "info")
_IMPACT: Final[tuple[Category, ...]] = ("errors", "latency", "traffic", "data", "confidence")


@dataclass(frozen=True, slots=True)
class Observation:
    """What one check found: the fact, its severity, and how many times its limit it is (`size`).

    `signal` names the observation for hypotheses and actions, such as `latency_up` or `errors_timeout`.
    """

    kind: Kind
    severity: Severity
    category: Category
    fact: Fact
    signal: str
    size: float = 1.0


def run_checks(facts: Facts) -> list[Observation]:
    """Return what the checks found: the most severe first, then by impact, then by size."""
    found = [observation for check in _CHECKS for observation in check(facts)]
    return sorted(found, key=lambda each: (_SEVERITIES.index(each.severity), _IMPACT.index(each.category), -each.size))


def status_of(facts: Facts, observations: list[Observation]) -> Status:
    """Return the status by the worst severity; too little data only counts when nothing is wrong."""
    severities = {observation.severity for observation in observations}
    if "critical" in severities:
        return "critical"
    if "warning" in severities:
        return "degraded"
    return "healthy" if has_enough(facts) else "insufficient_data"


def has_enough(facts: Facts) -> bool:
    return facts["requests"].n >= ENOUGH


def category_of(metric: str) -> Category:
    """Return the part of the service that a metric describes."""
    return _CATEGORIES.get(metric.partition(".")[0], "traffic")


def _breaches(facts: Facts) -> Iterator[Observation]:
    for fact in facts.breached:
        if fact.rule is None or fact.current is None:
            continue
        side = "up" if fact.rule.rule.above is not None else "down"
        category = category_of(fact.metric)
        drift = fact.metric.removeprefix("drift.")
        signal = f"drift_{drift}" if drift != fact.metric else f"{_subject(fact.metric)}_{side}"
        limit = abs(fact.threshold or 0.0) or 1.0
        yield Observation("breach", fact.rule.rule.severity, category, fact, signal, abs(fact.current) / limit)


def _latency_changes(facts: Facts) -> Iterator[Observation]:
    for metric in COMPARED_LATENCIES:
        change = _comparable_change(facts[metric])
        if change is not None and abs(change) >= LATENCY_CHANGE_PCT:
            yield _change("latency_change", facts[metric], change, LATENCY_CHANGE_PCT, worse=change > 0)
            return  # the median would repeat what the tail says


def _rate_changes(facts: Facts) -> Iterator[Observation]:
    """A limiter that refuses requests works as configured, so it is never a warning."""
    for metric, limit in RATE_CHANGE.items():
        change = _comparable_difference(facts[metric])
        if change is not None and abs(change) >= limit:
            worse = change > 0 and metric != "limited_rate"
            yield _change("rate_change", facts[metric], change, limit, worse=worse)


def _volume_change(facts: Facts) -> Iterator[Observation]:
    fact = facts["requests"]
    change = fact.read("delta_pct")
    if change is None or max(fact.n, fact.previous_n) < ENOUGH_TO_COMPARE:
        return
    if abs(change.value) >= VOLUME_CHANGE_PCT:
        yield _change("volume_change", fact, change.value, VOLUME_CHANGE_PCT, worse=change.value < 0)


def _tail(facts: Facts) -> Iterator[Observation]:
    fact = facts[TAIL_RATIO]
    if fact.current is not None and fact.n >= ENOUGH_TO_COMPARE and fact.current >= TAIL_RATIO_LIMIT:
        yield Observation("tail", "info", "latency", fact, "tail", fact.current / TAIL_RATIO_LIMIT)


def _confidence_change(facts: Facts) -> Iterator[Observation]:
    fact = facts["confidence.mean"]
    change = _comparable_difference(fact)
    if change is not None and abs(change) >= CONFIDENCE_CHANGE:
        yield _change("confidence_change", fact, change, CONFIDENCE_CHANGE, worse=change < 0)


def _label_shift(facts: Facts) -> Iterator[Observation]:
    """The label whose share changed most, because what one gains the others lose."""
    changes = [(abs(delta.value), fact) for fact in facts.labels if (delta := fact.read("delta_abs")) is not None]
    change, fact = max(changes, key=lambda item: item[0], default=(0.0, None))
    if fact is not None and fact.compared_n >= ENOUGH_TO_COMPARE and change >= LABEL_SHIFT:
        severity: Severity = "warning" if change >= LABEL_SHIFT_WARNING else "info"
        yield Observation("label_shift", severity, "data", fact, "label_shift", change / LABEL_SHIFT)


def _drift(facts: Facts) -> Iterator[Observation]:
    for fact in facts.drifts:
        if fact.current is not None and fact.compared_n >= ENOUGH_TO_COMPARE and fact.current >= DRIFT:
            severity: Severity = "warning" if fact.current >= DRIFT_WARNING else "info"
            signal = fact.id.replace(".", "_")
            yield Observation("drift", severity, "data", fact, signal, fact.current / DRIFT)


def _error_classes(facts: Facts) -> Iterator[Observation]:
    requests = facts["error_rate"].n  # without rate-limited requests, which are not errors
    for fact in facts.errors:
        share = (fact.current or 0.0) / requests if requests >= ENOUGH else 0.0
        if share >= ERROR_CLASS_SHARE:
            severity: Severity = "critical" if share >= ERROR_CLASS_CRITICAL_SHARE else "warning"
            signal = fact.id.replace(".", "_")
            yield Observation("error_class", severity, "errors", fact, signal, share / ERROR_CLASS_SHARE)


def _route_errors(facts: Facts) -> Iterator[Observation]:
    """The route with most of the errors, once there are enough of them to report."""
    if not any(_error_classes(facts)) or len(facts.routes) < 1:
        return
    fact = facts.routes[0]
    if fact.current is not None and fact.current >= ROUTE_SHARE:
        yield Observation("route_errors", "info", "errors", fact, "route_errors", fact.current / ROUTE_SHARE)


def _explanations(facts: Facts) -> Iterator[Observation]:
    """Changes of queue time, compute time, text length and cache share; they matter where latency changed."""
    for metric, subject in EXPLANATION_SIGNALS.items():
        fact = facts.get(metric)
        change = _comparable_change(fact) if fact is not None else None
        if fact is not None and change is not None and abs(change) >= EXPLANATION_CHANGE_PCT:
            signal = f"{subject}_{'up' if change > 0 else 'down'}"
            yield Observation("explanation", "info", "latency", fact, signal, abs(change) / EXPLANATION_CHANGE_PCT)


_CHECKS: Final[tuple[Callable[[Facts], Iterator[Observation]], ...]] = (
    _breaches,
    _error_classes,
    _route_errors,
    _latency_changes,
    _rate_changes,
    _volume_change,
    _tail,
    _explanations,
    _confidence_change,
    _label_shift,
    _drift,
)


def _change(kind: Kind, fact: Fact, change: float, limit: float, *, worse: bool) -> Observation:
    signal = f"{_subject(fact.metric)}_{'up' if change > 0 else 'down'}"
    severity: Severity = "warning" if worse else "info"
    return Observation(kind, severity, category_of(fact.metric), fact, signal, abs(change) / limit)


def _subject(metric: str) -> str:
    group = metric.partition(".")[0]
    names = {"latency_ms": "latency", "error_rate": "errors", "limited_rate": "limited", "confidence": "confidence"}
    return names.get(group, "volume")


def _comparable_change(fact: Fact) -> float | None:
    change = fact.read("delta_pct")
    return None if change is None or fact.compared_n < ENOUGH_TO_COMPARE else change.value


def _comparable_difference(fact: Fact) -> float | None:
    change = fact.read("delta_abs")
    return None if change is None or fact.compared_n < ENOUGH_TO_COMPARE else change.value

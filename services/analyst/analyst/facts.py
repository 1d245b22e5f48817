"""Aggregate → facts: every number a report may show, with unit, polarity, method and error; writes no prose."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

from analyst.report import Figure, Reading, Unit
from common.contracts import (
    WINDOW_S,
    Aggregate,
    Latency,
    MetricName,
    RuleMetric,
    Summary,
    ThresholdState,
    TimeRange,
    Window,
)

Method = Literal["exact", "sketch"]

NAMES: Final[dict[RuleMetric, tuple[str, Unit, int]]] = {
    # metric: (how prose calls it, its unit, polarity: +1 more is better, -1 more is worse, 0 neither)
    "requests": ("requests", "count", 0),
    "predictions": ("answered predictions", "count", 0),
    "throughput_per_s": ("throughput", "per_s", +1),
    "error_rate": ("error rate", "share", -1),
    "limited_rate": ("share of rate-limited requests", "share", -1),
    "latency_ms.mean": ("mean latency", "ms", -1),
    "latency_ms.p50": ("median latency", "ms", -1),
    "latency_ms.p90": ("p90 latency", "ms", -1),
    "latency_ms.p95": ("p95 latency", "ms", -1),
    "latency_ms.p99": ("p99 latency", "ms", -1),
    "latency_ms.max": ("maximum latency", "ms", -1),
    "confidence.mean": ("mean confidence", "score", +1),
    "drift.labels": ("label drift", "score", -1),
    "drift.confidence": ("confidence drift", "score", -1),
    "drift.length": ("length drift", "score", -1),
}
METRICS: Final[tuple[MetricName, ...]] = get_args(MetricName)
TAIL_RATIO: Final = "latency_ms.tail_ratio"
RULE_PREFIX: Final = "rule."
ERRORS_PREFIX: Final = "errors."
LABEL_PREFIX: Final = "label_share."
MAX_LABELS: Final = 10
_NOT_ERRORS: Final = frozenset({"ok", "limited"})
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,80}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Value:
    """A number with what is known about it: how it was made, its error bound and the observations behind it."""

    value: float
    unit: Unit
    method: Method
    rel_error: float
    n: int | None


@dataclass(frozen=True, slots=True)
class Fact:
    """One metric (or one threshold rule, `rule.<name>`) in the current and the previous window."""

    id: str
    metric: str
    name: str
    unit: Unit
    polarity: int
    current: float | None
    previous: float | None = None
    threshold: float | None = None
    method: Method = "exact"
    rel_error: float = 0.0
    n: int = 0  # observations in the current window; not told for a rule
    previous_n: int = 0
    rule: ThresholdState | None = None
    label: str = ""

    def read(self, reading: Reading) -> Value | None:
        """The number, or None where there is none, or where the change is smaller than its own error."""
        if reading == "delta_abs" or reading == "delta_pct":
            return self._delta(reading)
        value = {"current": self.current, "previous": self.previous, "threshold": self.threshold}[reading]
        if value is None:
            return None
        if reading == "threshold":
            return Value(value, self.unit, "exact", 0.0, None)
        n = self.n if reading == "current" else self.previous_n
        return Value(value, self.unit, self.method, self.rel_error, None if self.rule else n)

    def _delta(self, reading: Reading) -> Value | None:
        if self.current is None or self.previous is None:
            return None
        # rel_error is against the true value, and what we hold is the measured one
        relative = self.rel_error / (1 - self.rel_error)
        if reading == "delta_abs":
            difference = self.current - self.previous
            return self._changed(difference, relative * (abs(self.current) + abs(self.previous)), self.unit)
        ratio = _quotient(self.current, self.previous)
        if ratio is None:
            return None
        return self._changed((ratio - 1) * 100, 200 * relative * abs(ratio), "percent")

    def _changed(self, change: float, error: float, unit: Unit) -> Value | None:
        if error and error >= abs(change):
            return None
        return Value(change, unit, self.method, error / abs(change) if error else 0.0, self.compared_n)

    @property
    def compared_n(self) -> int:
        """Observations behind a comparison of the two windows: those of the smaller one."""
        return min(self.n, self.previous_n)

    @property
    def direction(self) -> int:
        """+1 rose, -1 fell, 0 did not change by more than its error, or is not known."""
        delta = self.read("delta_abs")
        return 0 if delta is None else (delta.value > 0) - (delta.value < 0)


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts of one aggregate. `windows` are the window names that prose may use."""

    by_id: dict[str, Fact]
    windows: frozenset[Window]
    current: TimeRange
    previous: TimeRange
    lag_s: float | None

    def __getitem__(self, fact_id: str) -> Fact:
        return self.by_id[fact_id]

    def get(self, fact_id: str) -> Fact | None:
        return self.by_id.get(fact_id)

    @property
    def rules(self) -> list[Fact]:
        return [fact for fact in self.by_id.values() if fact.rule is not None]

    @property
    def breached(self) -> list[Fact]:
        return [fact for fact in self.rules if fact.rule is not None and fact.rule.breached]

    @property
    def errors(self) -> list[Fact]:
        return [fact for fact in self.by_id.values() if fact.id.startswith(ERRORS_PREFIX)]

    @property
    def labels(self) -> list[Fact]:
        return [fact for fact in self.by_id.values() if fact.label]


def read_facts(aggregate: Aggregate, window: Window | None) -> Facts:
    """Everything in `aggregate` that may be said; `window` is the name it was asked by, if any."""
    facts = [*_metrics(aggregate), *_errors(aggregate), *_labels(aggregate), _tail_ratio(aggregate)]
    facts += [_rule(state, aggregate) for state in aggregate.thresholds]
    windows = {state.rule.window for state in aggregate.thresholds} | ({window} if window else set())
    return Facts(
        by_id={fact.id: fact for fact in facts if _SAFE_ID.fullmatch(fact.id)},
        windows=frozenset(windows & WINDOW_S.keys()),
        current=aggregate.range,
        previous=aggregate.previous.range,
        lag_s=aggregate.lag_s,
    )


def figure(evidence_id: str, fact: Fact, reading: Reading) -> Figure | None:
    """The figure that a reference shows, or None where the fact has no such number."""
    found = fact.read(reading)
    if found is None:
        return None
    return Figure(
        id=evidence_id,
        metric=fact.id,
        window=reading,
        value=found.value,
        unit=found.unit,
        method=found.method,
        rel_error=found.rel_error,
        n=found.n,
    )


def _metrics(aggregate: Aggregate) -> Iterator[Fact]:
    for metric in METRICS:
        name, unit, polarity = NAMES[metric]
        current, n = _value(aggregate, metric)
        previous, previous_n = _value(aggregate.previous, metric)
        method, rel_error = _precision(metric, aggregate, aggregate.previous)
        yield Fact(metric, metric, name, unit, polarity, current, previous, None, method, rel_error, n, previous_n)


def _value(summary: Summary, metric: MetricName) -> tuple[float | None, int]:
    """The metric's value and how many observations it rests on."""
    latency = summary.latency_ms
    match metric:
        case "requests" | "predictions" | "throughput_per_s":
            value: float | None = getattr(summary, metric)
            return value, summary.predictions if metric == "predictions" else summary.requests
        case "error_rate":
            return summary.error_rate, summary.requests - summary.rate_limited
        case "limited_rate":
            return summary.limited_rate, summary.requests
        case "confidence.mean":
            return summary.confidence.mean, sum(summary.confidence.histogram)
        case _:
            value = getattr(latency, metric.removeprefix("latency_ms."))
            return value, latency.n


def _precision(metric: str, *summaries: Summary) -> tuple[Method, float]:
    """The weaker of the windows' methods: a comparison is only as good as its worse side."""
    if not metric.startswith("latency_ms."):
        return "exact", 0.0
    latencies: list[Latency] = [summary.latency_ms for summary in summaries]
    sketched = any(latency.method == "sketch" for latency in latencies)
    return ("sketch" if sketched else "exact"), max(latency.relative_error for latency in latencies)


def _errors(aggregate: Aggregate) -> Iterator[Fact]:
    for outcome in sorted((aggregate.errors.keys() | aggregate.previous.errors.keys()) - _NOT_ERRORS):
        yield Fact(
            id=f"{ERRORS_PREFIX}{outcome}",
            metric=f"{ERRORS_PREFIX}{outcome}",
            name=f"{outcome.replace('_', ' ')} outcomes",
            unit="count",
            polarity=-1,
            current=aggregate.errors.get(outcome, 0),
            previous=aggregate.previous.errors.get(outcome, 0),
            n=aggregate.requests,
            previous_n=aggregate.previous.requests,
        )


def _labels(aggregate: Aggregate) -> Iterator[Fact]:
    """The label mix. Labels are the model's own words, and prose may only quote them."""
    now, before = _counts(aggregate), _counts(aggregate.previous)
    n, previous_n = sum(now.values()), sum(before.values())
    for label in sorted(now | before, key=lambda label: (-now[label], label))[:MAX_LABELS]:
        metric, name = f"{LABEL_PREFIX}{label.lower()}", f'share of "{label}"'
        shares = _quotient(now[label], n), _quotient(before[label], previous_n)
        yield Fact(metric, metric, name, "share", 0, *shares, n=n, previous_n=previous_n, label=label)


def _counts(summary: Summary) -> Counter[str]:
    return Counter({share.label: share.count for share in summary.labels})


def _tail_ratio(aggregate: Aggregate) -> Fact:
    method, error = _precision("latency_ms.p99", aggregate, aggregate.previous)
    return Fact(
        id=TAIL_RATIO,
        metric=TAIL_RATIO,
        name="tail-to-median ratio",
        unit="ratio",
        polarity=-1,
        current=_ratio(aggregate.latency_ms),
        previous=_ratio(aggregate.previous.latency_ms),
        method=method,
        rel_error=2 * error / (1 - error) if error else 0.0,
        n=aggregate.latency_ms.n,
        previous_n=aggregate.previous.latency_ms.n,
    )


def _ratio(latency: Latency) -> float | None:
    return None if latency.p99 is None or latency.p50 is None else _quotient(latency.p99, latency.p50)


def _quotient(numerator: float, denominator: float) -> float | None:
    """None where it is not a number that a report can show."""
    ratio = numerator / denominator if denominator else math.inf
    return ratio if math.isfinite(ratio) else None


def _rule(state: ThresholdState, aggregate: Aggregate) -> Fact:
    """Its value is of the rule's own window, whose precision is not told: the report's window bounds it."""
    rule = state.rule
    name, unit, polarity = NAMES[rule.metric]
    method, rel_error = _precision(rule.metric, aggregate)
    return Fact(
        id=f"{RULE_PREFIX}{rule.name}",
        metric=rule.metric,
        name=name,
        unit=unit,
        polarity=polarity,
        current=state.current,
        threshold=rule.above if rule.above is not None else rule.below,
        method=method,
        rel_error=rel_error,
        rule=state,
    )

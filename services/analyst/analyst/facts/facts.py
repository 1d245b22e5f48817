"""What the metrics service told → facts: every number a report may show; writes no prose."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, get_args

from analyst.facts.fact import NAMES, Fact, Method, quotient
from analyst.report.models import Figure, Reading
from common.contracts.aggregates import SKETCH_RELATIVE_ERROR, Aggregate, Drift, DriftReport, Latency, Summary
from common.contracts.thresholds import DriftName, MetricName, ThresholdState
from common.contracts.windows import WINDOW_S, TimeRange, Window

METRICS: Final[tuple[MetricName, ...]] = get_args(MetricName)
DRIFTS: Final[tuple[DriftName, ...]] = get_args(DriftName)
TAIL_RATIO: Final = "latency_ms.tail_ratio"
RULE_PREFIX: Final = "rule."
ERRORS_PREFIX: Final = "errors."
LABEL_PREFIX: Final = "label_share."
PERCENTILE_PREFIX: Final = "latency_ms.p"
MAX_LABELS: Final = 10
_NOT_ERRORS: Final = frozenset({"ok", "limited"})
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,80}", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts of one report. `window` is the name it was asked by, if any, `windows` are the names that prose may
    use; `reference` is what drift was measured against, None where the metrics service did not tell. So many thresholds
    are `unjudged`, and left out: what is told of them is of another time.
    """

    by_id: dict[str, Fact]
    window: Window | None
    windows: frozenset[Window]
    current: TimeRange
    previous: TimeRange
    reference: TimeRange | None
    lag_s: float | None
    unjudged: int = 0

    def __getitem__(self, fact_id: str) -> Fact:
        return self.by_id[fact_id]

    def get(self, fact_id: str) -> Fact | None:
        return self.by_id.get(fact_id)

    @property
    def has_traffic(self) -> bool:
        """Something was asked in the window or in the one before."""
        requests = self["requests"]
        return bool(requests.current or requests.previous)

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
    def drifts(self) -> list[Fact]:
        return [fact for fact in self.by_id.values() if fact.id in DRIFTS]

    @property
    def labels(self) -> list[Fact]:
        return [fact for fact in self.by_id.values() if fact.label]


def read_facts(
    aggregate: Aggregate, window: Window | None, drift: DriftReport | None = None, *, is_past: bool = False
) -> Facts:
    """Everything that may be said; `window` is the name it was asked by, if any, and `drift` may be missing.

    The metrics service judges thresholds up to now, whatever was asked: they say nothing of a window that `is_past`.
    """
    thresholds = [] if is_past else aggregate.thresholds
    facts = [*_metrics(aggregate), *_errors(aggregate), *_labels(aggregate), _tail_ratio(aggregate)]
    facts += [_rule(state) for state in thresholds]
    facts += _drifts(drift) if drift is not None else []
    windows = {state.rule.window for state in thresholds} | ({window} if window else set())
    return Facts(
        by_id={fact.id: fact for fact in facts if _SAFE_ID.fullmatch(fact.id)},
        window=window,
        windows=frozenset(windows & WINDOW_S.keys()),
        current=aggregate.range,
        previous=aggregate.previous.range,
        reference=drift.reference if drift is not None else None,
        lag_s=aggregate.lag_s,
        unjudged=len(aggregate.thresholds) - len(thresholds),
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
    if not metric.startswith(PERCENTILE_PREFIX):
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
    """The label mix. Labels are the model's own words, and prose may only quote them, or their rank."""
    now, before = _counts(aggregate), _counts(aggregate.previous)
    n, previous_n = sum(now.values()), sum(before.values())
    names = _label_names(sorted(now | before, key=lambda label: (-now[label], label))[:MAX_LABELS])
    for label, name in names.items():
        metric, shown = f"{LABEL_PREFIX}{name}", label if name == label.lower() else name
        shares = quotient(now[label], n), quotient(before[label], previous_n)
        yield Fact(metric, metric, f'share of "{shown}"', "share", 0, *shares, n=n, previous_n=previous_n, label=shown)


def _label_names(labels: list[str]) -> dict[str, str]:
    """One for each. What is more than a word goes by its rank: a label could hold a text, and no prompt has room."""
    names: dict[str, str] = {}
    for rank, label in enumerate(labels, 1):
        name = label.lower() if _WORD.fullmatch(label) else f"label-{rank}"
        while name in names.values():
            name += "-"
        names[label] = name
    return names


def _counts(summary: Summary) -> Counter[str]:
    return Counter({share.label: share.count for share in summary.labels})


def _drifts(report: DriftReport) -> Iterator[Fact]:
    """How far each distribution moved beyond chance, against a stretch of its own: there is no previous value."""
    for metric in DRIFTS:
        drift: Drift = getattr(report, metric.removeprefix("drift."))
        name, unit, polarity = NAMES[metric]
        yield Fact(metric, metric, name, unit, polarity, drift.value, n=drift.n, previous_n=drift.reference_n)


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
    return None if latency.p99 is None or latency.p50 is None else quotient(latency.p99, latency.p50)


def _rule(state: ThresholdState) -> Fact:
    """Its value is of the rule's own window, where latency percentiles are estimates whatever the report's are."""
    rule = state.rule
    name, unit, polarity = NAMES[rule.metric]
    is_estimate = rule.metric.startswith(PERCENTILE_PREFIX)
    return Fact(
        id=f"{RULE_PREFIX}{rule.name}",
        metric=rule.metric,
        name=name,
        unit=unit,
        polarity=polarity,
        current=state.current,
        threshold=rule.above if rule.above is not None else rule.below,
        method="sketch" if is_estimate else "exact",
        rel_error=SKETCH_RELATIVE_ERROR if is_estimate else 0.0,
        rule=state,
    )

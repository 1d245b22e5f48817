"""Facts: every number that a report may show, looked up in what the metrics service returned."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, get_args

from analyst.facts.fact import NAMES, Fact, Method, quotient
from analyst.report.models import Figure, Reading, Unit
from common.contracts.aggregates import SKETCH_RELATIVE_ERROR, Aggregate, Drift, DriftReport, Latency, Summary
from common.contracts.thresholds import DriftName, MetricName, ThresholdState
from common.contracts.windows import TimeRange, Window

METRICS: Final[tuple[MetricName, ...]] = get_args(MetricName)
DRIFTS: Final[tuple[DriftName, ...]] = get_args(DriftName)
TAIL_RATIO: Final = "latency_ms.tail_ratio"
RULE_PREFIX: Final = "rule."
ERRORS_PREFIX: Final = "errors."
LABEL_PREFIX: Final = "label_share."
PERCENTILE_PREFIX: Final = "latency_ms.p"
ROUTE_PREFIX: Final = "route_errors."
MAX_LABELS: Final = 10
MAX_ROUTES: Final = 3
EXPLANATIONS: Final[dict[str, tuple[str, Unit, int]]] = {
    "cached_share": ("share of answers from the cache", "share", +1),
    "computed_latency_ms.p95": ("p95 latency without the cache", "ms", -1),
    "queue_ms.p95": ("p95 queue time", "ms", -1),
    "compute_ms.p95": ("p95 compute time", "ms", -1),
    "tokens.p95": ("p95 text length in tokens", "count", 0),
}
_NOT_ERRORS: Final = frozenset({"ok", "limited"})
_ROUTE: Final = re.compile(r"/[A-Za-z0-9_./-]{1,48}", re.ASCII)
_SAFE_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,80}", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Facts:
    """All facts of one report.

    `window` is None for absolute times and `reference` without drift. `skipped_rules` thresholds are about another
    time than the window.
    """

    by_id: dict[str, Fact]
    window: Window | None
    current: TimeRange
    previous: TimeRange
    reference: TimeRange | None
    lag_s: float | None
    skipped_rules: int = 0

    def __getitem__(self, fact_id: str) -> Fact:
        return self.by_id[fact_id]

    def get(self, fact_id: str) -> Fact | None:
        return self.by_id.get(fact_id)

    @property
    def has_traffic(self) -> bool:
        """Whether there were requests in either window."""
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
    def routes(self) -> list[Fact]:
        return [fact for fact in self.by_id.values() if fact.route]

    @property
    def labels(self) -> list[Fact]:
        return [fact for fact in self.by_id.values() if fact.label]


def read_facts(
    aggregate: Aggregate, window: Window | None, drift: DriftReport | None = None, *, is_past: bool = False
) -> Facts:
    """Return the facts of an aggregate. `window` is None for absolute times, and `drift` if it is unavailable.

    The metrics service evaluates thresholds up to now, so they are left out of a window that `is_past`.
    """
    thresholds = [] if is_past else aggregate.thresholds
    facts = [*_metrics(aggregate), *_explanations(aggregate), *_errors(aggregate), *_routes(aggregate)]
    facts += [*_labels(aggregate), _tail_ratio(aggregate)]
    facts += [_rule(state) for state in thresholds]
    facts += _drifts(drift) if drift is not None else []
    return Facts(
        by_id={fact.id: fact for fact in facts if _SAFE_ID.fullmatch(fact.id)},
        window=window,
        current=aggregate.range,
        previous=aggregate.previous.range,
        reference=drift.reference if drift is not None else None,
        lag_s=aggregate.lag_s,
        skipped_rules=len(aggregate.thresholds) - len(thresholds),
    )


def figure(figure_id: str, fact: Fact, reading: Reading) -> Figure | None:
    """Return the figure of a reading, or None if the fact has no such number."""
    found = fact.read(reading)
    if found is None:
        return None
    return Figure(
        id=figure_id,
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
    """Return the metric's value and its number of observations."""
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
    """Return the less precise method of the windows, and its error bound."""
    if not metric.startswith(PERCENTILE_PREFIX):
        return "exact", 0.0
    latencies: list[Latency] = [summary.latency_ms for summary in summaries]
    sketched = any(latency.method == "sketch" for latency in latencies)
    return ("sketch" if sketched else "exact"), max(latency.relative_error for latency in latencies)


def _explanations(aggregate: Aggregate) -> Iterator[Fact]:
    """What latency consists of, as far as the metrics service returns it."""
    for metric, (name, unit, polarity) in EXPLANATIONS.items():
        current, previous = _look_up(aggregate, metric), _look_up(aggregate.previous, metric)
        if current is not None:
            n, previous_n = _count(aggregate, metric), _count(aggregate.previous, metric)
            is_estimate = metric.endswith(".p95")
            method: Method = "sketch" if is_estimate else "exact"
            rel_error = SKETCH_RELATIVE_ERROR if is_estimate else 0.0
            yield Fact(metric, metric, name, unit, polarity, current, previous, None, method, rel_error, n, previous_n)


def _look_up(summary: Summary, path: str) -> float | None:
    value: object = summary
    for name in path.split("."):
        value = getattr(value, name, None)
    return float(value) if isinstance(value, int | float) else None


def _count(summary: Summary, path: str) -> int:
    n = _look_up(summary, f"{path.partition('.')[0]}.n")
    return summary.predictions if n is None else int(n)


def _routes(aggregate: Aggregate) -> Iterator[Fact]:
    """Each route's share of all errors, if the groups are by route and outcome."""
    totals: Counter[str] = Counter()
    for group in aggregate.groups:
        if group.key.get("outcome", "ok") not in _NOT_ERRORS:
            totals[group.key.get("route", "")] += group.requests
    errors = sum(totals.values())
    for route, count in totals.most_common(MAX_ROUTES):
        if _ROUTE.fullmatch(route):
            metric = f"{ROUTE_PREFIX}{route.strip('/').replace('/', '.')}"
            name = f"share of the errors on {route}"
            yield Fact(metric, metric, name, "share", 0, quotient(count, errors), n=errors, route=route)


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
    """The shares of the most frequent labels. A label that is not a single word is named by its rank."""
    now, before = _counts(aggregate), _counts(aggregate.previous)
    n, previous_n = sum(now.values()), sum(before.values())
    names = _label_names(sorted(now | before, key=lambda label: (-now[label], label))[:MAX_LABELS])
    for label, name in names.items():
        metric, shown = f"{LABEL_PREFIX}{name}", label if name == label.lower() else name
        shares = quotient(now[label], n), quotient(before[label], previous_n)
        yield Fact(metric, metric, f'share of "{shown}"', "share", 0, *shares, n=n, previous_n=previous_n, label=shown)


def _label_names(labels: list[str]) -> dict[str, str]:
    """Return a unique name for each label. A label that is not a single word could hold a client's text."""
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
    """How far each distribution moved beyond chance. The reference is its own, so there is no previous value."""
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
    """The state of a threshold, over the rule's own window."""
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

"""Random aggregates and drift reports, and the value of each figure by another path than the code's."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from analyst.report.models import Figure
from common.contracts.aggregates import Aggregate, Confidence, Drift, DriftReport, LabelShare, Latency, Summary
from common.contracts.events import Outcome
from common.contracts.thresholds import ThresholdRule, ThresholdState
from common.contracts.windows import TimeRange

NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
DRIFTS: Final = {"labels": "label", "confidence": "confidence", "length": "length"}
SKETCH_ERROR: Final = 0.02


def random_aggregate(chance: random.Random) -> Aggregate:
    """Two hours of a service, calm or not, with limits kept or broken."""
    before = _summary(chance, NOON - timedelta(hours=1))
    now = _summary(chance, NOON)
    return Aggregate(**now, previous=Summary(**before), thresholds=_thresholds(chance, now), lag_s=chance.random())


def random_drift(chance: random.Random) -> DriftReport:
    """What moved against the day before, or did not."""
    drifts = {}
    for name in DRIFTS:
        psi, noise = chance.choice((0.01, 0.2, 0.6)) * chance.random(), 0.01 * chance.random()
        value = max(0.0, psi - noise)
        n = chance.randrange(200, 100_000)
        drifts[name] = Drift(n=n, reference_n=24 * n, psi=psi, noise=noise, value=value, drifted=value >= 0.1)
    day = TimeRange(start=NOON - timedelta(days=1), end=NOON)
    return DriftReport(range=TimeRange(start=NOON, end=NOON + timedelta(hours=1)), reference=day, lag_s=0.0, **drifts)


def expected_value(document: dict[str, Any], figure: Figure) -> float:
    """What a figure must say, read by path from the JSON of an aggregate with `drift`; no code is the facts'."""
    if figure.metric.startswith("rule."):
        (state,) = [state for state in document["thresholds"] if f"rule.{state['rule']['name']}" == figure.metric]
        rule = state["rule"]
        limit = rule["below"] if rule["above"] is None else rule["above"]
        return float(state["current"] if figure.window == "current" else limit)
    if figure.metric.startswith("drift."):
        return float(document["drift"][figure.metric.partition(".")[2]]["value"])
    if figure.metric.startswith("route_errors."):
        route = "/" + figure.metric.partition(".")[2].replace(".", "/")
        failed = [group for group in document["groups"] if group["key"]["outcome"] not in ("ok", "limited")]
        own = sum(group["requests"] for group in failed if group["key"]["route"] == route)
        return float(own / sum(group["requests"] for group in failed))
    now, before = _look_up(document, figure.metric), _look_up(document["previous"], figure.metric)
    return {
        "current": lambda: now,
        "previous": lambda: before,
        "delta_abs": lambda: now - before,
        "delta_pct": lambda: (now / before - 1) * 100,
    }[figure.window]()


def _look_up(summary: dict[str, Any], metric: str) -> float:
    group, _, name = metric.partition(".")
    if metric == "latency_ms.tail_ratio":
        return float(summary["latency_ms"]["p99"] / summary["latency_ms"]["p50"])
    if group == "errors":
        return float(summary["errors"].get(name, 0))
    if group == "label_share":
        return float(next(label["share"] for label in summary["labels"] if label["label"].lower() == name))
    return float(summary[group][name] if name else summary[group])


def _summary(chance: random.Random, start: datetime) -> dict[str, Any]:
    requests = chance.randrange(200, 100_000)
    errors: dict[Outcome, int] = {name: chance.randrange(1, requests // 50) for name in ("timeout", "unavailable")}
    p50 = chance.uniform(5, 200)
    p95 = p50 * chance.uniform(1.5, 8)
    p99 = p95 * chance.uniform(1.1, 3)
    is_sketch = chance.random() < 0.5
    answered = requests - sum(errors.values())
    positive = chance.randrange(answered)
    return {
        "range": TimeRange(start=start, end=start + timedelta(hours=1)),
        "requests": requests,
        "predictions": answered,
        "rate_limited": 0,
        "errors": errors,
        "throughput_per_s": requests / 3600,
        "error_rate": sum(errors.values()) / requests,
        "limited_rate": 0.0,
        "latency_ms": Latency(
            n=answered,
            mean=p50 * 1.3,
            p50=p50,
            p90=p95 * 0.8,
            p95=p95,
            p99=p99,
            max=p99 * 2,
            method="sketch" if is_sketch else "exact",
            relative_error=SKETCH_ERROR if is_sketch else 0.0,
        ),
        "labels": [
            LabelShare(label="POSITIVE", count=positive, share=positive / answered),
            LabelShare(label="NEGATIVE", count=answered - positive, share=1 - positive / answered),
        ],
        "confidence": Confidence(mean=chance.uniform(0.6, 0.99), histogram=[0] * 9 + [answered]),
    }


def _thresholds(chance: random.Random, now: dict[str, Any]) -> list[ThresholdState]:
    latency, errors = now["latency_ms"].p95, now["error_rate"]
    rules = (
        (ThresholdRule(name="p95-slow", metric="latency_ms.p95", above=latency * chance.uniform(0.7, 1.5)), latency),
        (
            ThresholdRule(name="errors", metric="error_rate", above=errors * chance.uniform(0.7, 1.5), window="15m"),
            errors,
        ),
    )
    return [ThresholdState(rule=rule, current=value, breached=value > (rule.above or 0)) for rule, value in rules]

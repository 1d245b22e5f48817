"""Threshold rules: their document, the default document, and the state of a rule in a summary."""

from typing import Annotated, Final

from pydantic import AwareDatetime, Field, field_validator

from common.contracts.aggregates import Accuracy, Summary
from common.contracts.thresholds import ThresholdRule, ThresholdState
from common.contracts.windows import Body
from metrics.errors import InvalidField
from metrics.query.drift import Drifts

LATE_S: Final = 60.0  # as in the alert SluiceIngestLag; clocks differ by less
SHARES: Final = frozenset({"error_rate", "limited_rate", "confidence.mean", "label_share", "accuracy"})
COUNTS: Final = frozenset({"requests", "predictions", "throughput_per_s"})


class Thresholds(Body):
    """All rules. A PUT replaces the whole document."""

    rules: Annotated[list[ThresholdRule], Field(max_length=100)]

    @field_validator("rules")
    @classmethod
    def _named_apart(cls, rules: list[ThresholdRule]) -> list[ThresholdRule]:
        names = [rule.name for rule in rules]
        if len(set(names)) != len(names):
            raise ValueError("rules must have different names")
        return rules


class ThresholdVersion(Body):
    """A version of the document and the time from which it applied."""

    etag: str
    at: AwareDatetime
    document: Thresholds


class ThresholdHistory(Body):
    """Versions, newest first. Pass `cursor` to read the next page; it is null on the last."""

    versions: list[ThresholdVersion]
    cursor: int | None


DEFAULT: Final = Thresholds(
    rules=[
        ThresholdRule(
            name="error-rate", metric="error_rate", above=0.05, resolve_at=0.02, for_s=60, min_samples=20,
            severity="critical",
        ),
        ThresholdRule(
            name="latency-p95", metric="latency_ms.p95", above=500.0, resolve_at=400.0, for_s=120, min_samples=20,
        ),
        ThresholdRule(
            name="limited-rate", metric="limited_rate", above=0.5, resolve_at=0.3, for_s=120, min_samples=50,
            severity="info",
        ),
        ThresholdRule(
            name="confidence", metric="confidence.mean", below=0.6, resolve_at=0.65, min_samples=50, window="15m",
        ),
    ]
)  # fmt: skip


def evaluate_rule(
    rule: ThresholdRule, summary: Summary, drifts: Drifts | None = None, truth: Accuracy | None = None
) -> ThresholdState:
    """Return the state of `rule`, given the sum of its window, its drift, or its true labels."""
    current, samples = (truth.accuracy, truth.n) if truth is not None else _measure(rule, summary, drifts)
    breached = None
    if current is not None and (samples is None or samples >= rule.min_samples):
        breached = (rule.above is not None and current > rule.above) or (
            rule.below is not None and current < rule.below
        )
    return ThresholdState(rule=rule, current=current, breached=breached)


def suppress_while_lagging(state: ThresholdState, lag_s: float | None) -> ThresholdState:
    """Return what is certain about `state` while ingestion lags: a count can only be higher than measured."""
    is_late = lag_s is None or lag_s > LATE_S
    is_past = state.breached is (state.rule.above is not None)
    if not is_late or is_past or state.rule.metric not in COUNTS:
        return state
    return state.model_copy(update={"breached": None})


def check_limits(document: Thresholds) -> None:
    """Raise InvalidField for a share whose limit is outside 0 to 1. Stored documents may hold one."""
    for place, rule in enumerate(document.rules):
        for name in ("above", "below", "resolve_at"):
            limit = getattr(rule, name)
            if rule.metric in SHARES and limit is not None and not 0 <= limit <= 1:
                raise InvalidField(f"rules.{place}.{name}", "A share is between 0 and 1: write 5 % as 0.05.")


def _measure(rule: ThresholdRule, summary: Summary, drifts: Drifts | None) -> tuple[float | None, int | None]:
    """Return the metric's value and its number of samples, which is None for counts."""
    group, _, name = rule.metric.partition(".")
    if group == "accuracy":
        return None, 0
    if group == "label_share" and rule.where is not None:
        shares = {one.label: one.share for one in summary.labels}
        return (shares.get(rule.where.label or "", 0.0) if shares else None), summary.predictions
    if group == "drift":
        drift = getattr(drifts, name, None)
        return (drift.value, min(drift.n, drift.reference_n)) if drift else (None, 0)
    if group == "latency_ms":
        return getattr(summary.latency_ms, name), summary.latency_ms.n
    if group == "confidence":
        return summary.confidence.mean, sum(summary.confidence.histogram)
    if group == "error_rate":
        return summary.error_rate, summary.requests - summary.rate_limited
    if group == "limited_rate":
        return summary.limited_rate, summary.requests
    return getattr(summary, group), None

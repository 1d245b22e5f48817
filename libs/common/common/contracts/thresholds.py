"""Threshold rules, their state, and the alerts they raise."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, ValidationInfo, field_validator, model_validator

from common.contracts.windows import Body, Window

MetricName = Literal[
    "requests",
    "predictions",
    "throughput_per_s",
    "error_rate",
    "limited_rate",
    "latency_ms.mean",
    "latency_ms.p50",
    "latency_ms.p90",
    "latency_ms.p95",
    "latency_ms.p99",
    "latency_ms.max",
    "confidence.mean",
]
DriftName = Literal["drift.labels", "drift.confidence", "drift.length"]
FilteredName = Literal["label_share", "accuracy"]
RuleMetric = Literal[MetricName, DriftName, FilteredName]


class RuleFilter(Body):
    """Restrict a rule to events that match all of these; an absent field matches everything."""

    model: Annotated[str, Field(max_length=128)] | None = None
    route: Annotated[str, Field(max_length=64)] | None = None
    label: Annotated[str, Field(max_length=64)] | None = None


class ThresholdRule(Body):
    """Fires when `metric` over `window` is over `above` or under `below`. Set exactly one of them."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
    metric: RuleMetric
    above: float | None = None
    below: float | None = None
    resolve_at: float | None = None
    for_s: Annotated[
        int,
        Field(ge=0, le=86_400, description="Restarts after more than `window` without enough samples."),
    ] = 0
    keep_firing_for_s: Annotated[int, Field(ge=0, le=86_400)] = 0
    min_samples: Annotated[
        int,
        Field(ge=0, le=1_000_000, description="Of the metric. Counts and throughput do not need any."),
    ] = 1
    window: Window = "5m"
    reference: Annotated[
        Window | None, Field(description="For drift: the time before `window` to compare with, 24h by default.")
    ] = None
    severity: Literal["info", "warning", "critical"] = "warning"
    where: Annotated[
        RuleFilter | None, Field(description="`label_share` is the share of `where.label` among answered predictions.")
    ] = None

    @field_validator("resolve_at")
    @classmethod
    def _is_healthy(cls, value: float | None, info: ValidationInfo) -> float | None:
        above, below = info.data.get("above"), info.data.get("below")
        if value is not None and ((above is not None and value > above) or (below is not None and value < below)):
            raise ValueError("it must be on the healthy side of the limit")
        return value

    @field_validator("reference")
    @classmethod
    def _is_of_drift(cls, value: Window | None, info: ValidationInfo) -> Window | None:
        if value is not None and not info.data.get("metric", "drift.").startswith("drift."):
            raise ValueError("it applies to drift metrics only")
        return value

    @field_validator("where")
    @classmethod
    def _none_if_empty(cls, value: RuleFilter | None) -> RuleFilter | None:
        return value if value is not None and value.model_dump(exclude_none=True) else None

    @model_validator(mode="after")
    def _has_a_label(self) -> Self:
        if self.metric == "label_share" and (self.where is None or self.where.label is None):
            raise ValueError("label_share needs where.label")
        return self

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("set exactly one of above and below")
        return self


class ThresholdState(Body):
    """A rule and the current value of its metric. `breached` is null without enough samples.

    Latency percentiles are always sketches here, within SKETCH_RELATIVE_ERROR.
    """

    rule: ThresholdRule
    current: float | None
    breached: bool | None


AlertState = Literal["pending", "firing", "resolved"]


class Alert(Body):
    """A rule over its limit: pending for `for_s`, then firing until its metric is healthy."""

    rule: ThresholdRule
    state: AlertState
    value: Annotated[float | None, Field(description="The last known value.")]
    fingerprint: Annotated[str, Field(description="A hash of the rule's labels, the same in every notification.")]
    pending_at: AwareDatetime
    firing_at: AwareDatetime | None = None
    resolved_at: AwareDatetime | None = None


class Alerts(Body):
    """Firing, then pending, then resolved alerts, each newest first, and the last evaluation of the rules."""

    alerts: list[Alert]
    evaluated_at: AwareDatetime | None
    overdue: Annotated[bool, Field(description="An evaluation is overdue, so the list may be out of date.")]

"""Threshold rules, their state, and the alerts they raise."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, ValidationInfo, field_validator, model_validator

from common.contracts.base import Body, Window

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

RuleMetric = Literal[MetricName, DriftName]


class ThresholdRule(Body):
    """Fires when `metric` over `window` is past `above` or below `below`; exactly one of them is set."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")]
    metric: RuleMetric
    above: float | None = None
    below: float | None = None
    resolve_at: float | None = None
    for_s: Annotated[
        int,
        Field(ge=0, le=86_400, description="It begins anew after longer than `window` without enough samples."),
    ] = 0
    keep_firing_for_s: Annotated[int, Field(ge=0, le=86_400)] = 0
    min_samples: Annotated[
        int,
        Field(ge=0, le=1_000_000, description="Of what the metric is computed over; counts and throughput need none."),
    ] = 1
    window: Window = "5m"
    reference: Annotated[
        Window | None, Field(description="For drift: how long before `window` it is compared with; 24h if absent.")
    ] = None
    severity: Literal["info", "warning", "critical"] = "warning"

    @field_validator("resolve_at")
    @classmethod
    def _is_healthy(cls, value: float | None, info: ValidationInfo) -> float | None:
        above, below = info.data.get("above"), info.data.get("below")
        if value is not None and ((above is not None and value > above) or (below is not None and value < below)):
            raise ValueError("it must lie on the healthy side of the limit")
        return value

    @field_validator("reference")
    @classmethod
    def _is_of_drift(cls, value: Window | None, info: ValidationInfo) -> Window | None:
        if value is not None and not info.data.get("metric", "drift.").startswith("drift."):
            raise ValueError("it is for drift metrics only")
        return value

    @model_validator(mode="after")
    def _one_direction(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("set exactly one of above and below")
        return self


class ThresholdState(Body):
    """A rule and where its metric stands now; `breached` is null without enough samples.

    Latency percentiles are sketches here, within SKETCH_RELATIVE_ERROR, whatever those of the aggregate are.
    """

    rule: ThresholdRule
    current: float | None
    breached: bool | None


AlertState = Literal["pending", "firing", "resolved"]


class Alert(Body):
    """A rule that was past its limit: pending for `for_s`, then firing until its metric is healthy again."""

    rule: ThresholdRule
    state: AlertState
    value: Annotated[float | None, Field(description="When it was last known.")]
    fingerprint: Annotated[str, Field(description="Of the rule's labels, the same in every notification.")]
    pending_at: AwareDatetime
    firing_at: AwareDatetime | None = None
    resolved_at: AwareDatetime | None = None


class Alerts(Body):
    """Firing alerts, then pending, then resolved ones, each newest first, and when rules were last judged."""

    alerts: list[Alert]
    evaluated_at: AwareDatetime | None
    overdue: Annotated[bool, Field(description="Rules ought to have been judged since: what is listed may be over.")]

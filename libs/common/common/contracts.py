"""The wire contracts between services: events on the stream and the bodies one service reads from another."""

from typing import Annotated, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)

STREAM: Final = "{predictions}"
DEAD_LETTERS: Final = "{predictions}:dead"
EVENT_FIELD: Final = "event"

Outcome = Literal["ok", "limited", "invalid", "bad_gateway", "unavailable", "timeout", "error"]
Micros = Annotated[int, Field(ge=0, le=1 << 53)]
Count = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]


class Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    at_us: Annotated[Micros, Field(description="Unix time in µs, fixed by the producer in its journal.")]
    route: Annotated[str, Field(max_length=64)]
    outcome: Outcome


class PredictionEvent(Event):
    """One text that was scored (or failed on its own), whichever route it came by."""

    kind: Literal["prediction"] = "prediction"
    request_id: Annotated[str, Field(max_length=128)]
    trace_id: Annotated[str, Field(max_length=32)] | None = None
    model: Annotated[str, Field(min_length=1, max_length=128, description="Empty in rollups: counters have none.")]
    revision: Annotated[str, Field(max_length=64)]
    label: Annotated[str, Field(max_length=64)] | None = None
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    margin: Annotated[float, Field(ge=0, le=1)] | None = None
    cached: bool = False
    truncated: bool = False
    latency_us: Count
    queue_us: Count = 0
    compute_us: Count = 0
    tokens: Count = 0
    characters: Count = 0
    client: Annotated[str, Field(max_length=64, description="Keyed HMAC of the client's address.")] | None = None
    text: Annotated[str, Field(max_length=10_000)] | None = None


class CounterEvent(Event):
    """`n` requests that a service refused or failed itself within one second: a flood writes no row per request."""

    kind: Literal["counter"] = "counter"
    policy: Annotated[str, Field(max_length=64)] = ""
    n: Annotated[int, Field(ge=1, le=1 << 31)]


AnyEvent = Annotated[PredictionEvent | CounterEvent, Field(discriminator="kind")]
EVENT_ADAPTER: TypeAdapter[PredictionEvent | CounterEvent] = TypeAdapter(AnyEvent)


# ---- aggregates: what metrics answers and the analyst reads

Window = Literal["5m", "15m", "1h", "6h", "24h", "7d", "30d"]
WINDOW_S: Final[dict[Window, int]] = {
    "5m": 300,
    "15m": 900,
    "1h": 3_600,
    "6h": 21_600,
    "24h": 86_400,
    "7d": 604_800,
    "30d": 2_592_000,
}
Bucket = Literal["1m", "5m", "15m", "1h", "6h", "1d"]
GroupBy = Literal["model", "label", "outcome", "route"]
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


class Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Filters(Body):
    """Only what matches all of these is counted; an absent filter matches everything."""

    model: Annotated[str, Field(max_length=128)] | None = None
    route: Annotated[str, Field(max_length=64)] | None = None
    label: Annotated[str, Field(max_length=64)] | None = None
    outcome: Outcome | None = None


class AggregateRequest(Body):
    """Either `window` (up to now) or both `start` and `end`."""

    window: Window | None = None
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    bucket: Bucket | None = None
    group_by: Annotated[list[GroupBy], Field(max_length=4)] = []
    filters: Filters = Filters()


class TimeRange(Body):
    start: AwareDatetime
    end: AwareDatetime


SKETCH_RELATIVE_ERROR: Final = (2 ** (1 / 32) - 1) / (2 ** (1 / 32) + 1)
"""How far an estimated latency percentile may be from the true one, as a share of that: 1.083 %."""


class Latency(Body):
    """Milliseconds over answered predictions; null where there were none.

    Percentiles are exact or a sketch, which states its error bound; the mean and the maximum are exact always.
    """

    n: int
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    method: Literal["exact", "sketch"]
    relative_error: float


class LabelShare(Body):
    label: str
    count: int
    share: float


class Confidence(Body):
    """Scores of answered predictions: their mean, and counts in ten equal bins from 0 to 1."""

    mean: float | None = None
    histogram: list[int]


class Summary(Body):
    """One window in numbers. Rates are shares in [0, 1]; `error_rate` leaves rate-limited requests out."""

    range: TimeRange
    requests: int
    predictions: int
    rate_limited: int
    errors: dict[Outcome, int]
    throughput_per_s: float
    error_rate: float | None
    limited_rate: float | None
    latency_ms: Latency
    labels: list[LabelShare]
    confidence: Confidence


class SeriesPoint(Body):
    at: AwareDatetime
    requests: int
    predictions: int
    errors: int
    rate_limited: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Group(Body):
    """One combination of the `group_by` values."""

    key: dict[GroupBy, str]
    requests: int
    latency_ms: Latency


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


class Aggregate(Summary):
    """The answer of POST /metrics/aggregated; `lag_s` says how far ingestion is behind, null while unknown."""

    previous: Summary
    series: list[SeriesPoint] = []
    groups: list[Group] = []
    thresholds: list[ThresholdState] = []
    lag_s: float | None


# ---- alerts: what became of thresholds

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


# ---- drift: two stretches of time, compared


class Drift(Body):
    """How far a distribution moved, and how far chance alone would move it with so few observations.

    `psi` is the population stability index; `noise` is what it exceeds once in a thousand times when nothing changed;
    `value` is the excess, which a rule's limits are for. The rest is null where it does not apply.
    """

    n: int
    reference_n: int
    psi: float | None = None
    noise: float | None = None
    value: float | None = None
    jensen_shannon: Annotated[float | None, Field(description="Divergence in bits, 0 to 1.")] = None
    kolmogorov_smirnov: Annotated[float | None, Field(description="Largest gap of cumulated shares.")] = None
    drifted: Annotated[bool | None, Field(description="value ≥ 0.1; null without observations to compare.")] = None


class DriftReport(Body):
    """Answered predictions of `range` beside those of `reference`."""

    range: TimeRange
    reference: TimeRange
    labels: Drift
    confidence: Drift
    length: Drift
    lag_s: float | None


# ---- single predictions


class StoredPrediction(Body):
    """One prediction as it is stored, whatever its outcome."""

    id: str
    at: AwareDatetime
    route: str
    outcome: Outcome
    request_id: str
    trace_id: str | None
    model: str
    revision: str
    label: str | None
    score: float | None
    margin: float | None
    cached: bool
    truncated: bool
    latency_us: int
    queue_us: int
    compute_us: int
    tokens: int
    characters: int
    client: str | None
    text: str | None


class PredictionPage(Body):
    """Newest first; `next` is the cursor of the following page, null on the last."""

    predictions: list[StoredPrediction]
    next: str | None


# ---- what the analyst tells of its model, and the edge shows in /health

ModelCondition = Literal["no_key", "not_asked", "ok", "not_found", "unauthorised", "invalid", "failing"]


class ModelHealth(Body):
    """`not_found`: the provider knows no such model (retired?); `failing`: the last call failed, the next may not."""

    name: str | None
    state: ModelCondition


class AnalystHealth(Body):
    """`degraded`: reports are written by rules, because the model cannot be used."""

    status: Literal["ok", "degraded"]
    model: ModelHealth

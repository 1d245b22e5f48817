"""What the metrics service answers: aggregates, drift, and single predictions."""

from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, Field

from common.contracts.events import Outcome
from common.contracts.thresholds import ThresholdState
from common.contracts.windows import Body, TimeRange, Window

Bucket = Literal["10s", "1m", "5m", "15m", "1h", "6h", "1d"]
GroupBy = Literal["model", "label", "outcome", "route"]


class Filters(Body):
    """Events must match all filters; an absent filter matches everything."""

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
    group_by: Annotated[list[GroupBy], Field(max_length=4)] = Field([])
    filters: Filters = Filters()


SKETCH_RELATIVE_ERROR: Final = (2 ** (1 / 32) - 1) / (2 ** (1 / 32) + 1)

"""The largest relative error of an estimated latency percentile: 1.083 %."""


class Latency(Body):
    """Milliseconds over successful predictions; null without any.

    Percentiles are estimates from a histogram, within `relative_error`. The mean and the maximum are exact.
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


class Distribution(Body):
    """Percentiles are estimates with the same error bound as those of latency; all are null without values."""

    n: int
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class LabelShare(Body):
    label: str
    count: int
    share: float


class Confidence(Body):
    """Mean score of successful predictions, and counts in ten equal bins from 0 to 1."""

    mean: float | None = None
    histogram: list[int]


class Summary(Body):
    """The figures of one window. Rates are between 0 and 1; `error_rate` excludes rate-limited requests."""

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
    cached_share: Annotated[
        float | None, Field(description="Share of answers from the cache; null where none was recorded.")
    ] = None
    computed_latency_ms: Annotated[Latency | None, Field(description="Without answers from the cache.")] = None
    queue_ms: Annotated[Distribution | None, Field(description="Of computed answers: the wait for a batch.")] = None
    compute_ms: Annotated[Distribution | None, Field(description="Of computed answers: the model's time.")] = None
    tokens: Annotated[Distribution | None, Field(description="Of computed answers: tokens of a text.")] = None


class SeriesPoint(Body):
    at: AwareDatetime
    requests: int
    predictions: int
    errors: int
    rate_limited: int
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    cached_share: float | None = None
    queue_p95_ms: float | None = None
    compute_p95_ms: float | None = None
    tokens_mean: float | None = None


class Group(Body):
    """One combination of the `group_by` values."""

    key: dict[GroupBy, str]
    requests: int
    latency_ms: Latency


class Confusion(Body):
    predicted: str
    actual: str
    count: int


class Accuracy(Body):
    """Predictions compared with the true labels that were sent for them."""

    n: Annotated[int, Field(description="Predictions of the range with a true label.")]
    correct: int
    accuracy: float | None
    coverage: Annotated[float | None, Field(description="Share of the answered predictions with a true label.")]
    confusion: list[Confusion]

    @classmethod
    def of(cls, confusion: list[Confusion], predictions: int) -> Self:
        n = sum(cell.count for cell in confusion)
        correct = sum(cell.count for cell in confusion if cell.predicted == cell.actual)
        return cls(
            n=n,
            correct=correct,
            accuracy=correct / n if n else None,
            coverage=n / predictions if predictions else None,
            confusion=confusion,
        )


class Aggregate(Summary):
    """The response of POST /metrics/aggregated. `lag_s` is the delay of ingestion, null while unknown."""

    previous: Summary
    series: list[SeriesPoint] = Field([])
    groups: list[Group] = Field([])
    thresholds: list[ThresholdState] = Field([])
    feedback: Accuracy | None = None
    lag_s: float | None


class Drift(Body):
    """How far a distribution moved, and how far chance alone moves it with so few observations.

    `psi` is the population stability index. Without any change it exceeds `noise` once in a thousand times. `value` is
    the excess, which rules compare with their limits. Fields that do not apply are null.
    """

    n: int
    reference_n: int
    psi: float | None = None
    noise: float | None = None
    value: float | None = None
    drifted: Annotated[bool | None, Field(description="value ≥ 0.1; null below 100 observations on either side.")] = (
        None
    )


class DriftReport(Body):
    """Successful predictions of `range` compared with those of `reference`."""

    range: TimeRange
    reference: TimeRange
    labels: Drift
    confidence: Drift
    length: Drift
    lag_s: float | None


class StoredPrediction(Body):
    """A stored prediction with any outcome."""

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
    """Predictions, newest first. Pass `cursor` to read the next page; it is null on the last."""

    predictions: list[StoredPrediction]
    cursor: str | None

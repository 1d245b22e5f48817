"""Examples of requests and responses for the OpenAPI document: one consistent hour of a small service."""

from datetime import UTC, datetime, timedelta
from typing import Final

from common.contracts.aggregates import (
    SKETCH_RELATIVE_ERROR,
    Aggregate,
    AggregateRequest,
    Confidence,
    Distribution,
    Drift,
    DriftReport,
    Group,
    LabelShare,
    Latency,
    PredictionPage,
    SeriesPoint,
    StoredPrediction,
    Summary,
)
from common.contracts.feedback import FeedbackRequest, FeedbackResponse, FeedbackResult
from common.contracts.thresholds import Alert, Alerts, ThresholdRule, ThresholdState
from common.contracts.windows import TimeRange
from metrics.alerting.rules import ThresholdHistory, Thresholds, ThresholdVersion

_END: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)
_RANGE: Final = TimeRange(start=_END - _HOUR, end=_END)
_BEFORE: Final = TimeRange(start=_END - 2 * _HOUR, end=_END - _HOUR)
_RULE: Final = ThresholdRule(name="latency-p95", metric="latency_ms.p95", above=500.0, resolve_at=400.0, for_s=120)
_ESTIMATED: Final = {"method": "sketch", "relative_error": SKETCH_RELATIVE_ERROR}
_NO_LATENCY: Final = Latency.model_validate({"n": 0} | _ESTIMATED)
_LATENCY: Final = Latency.model_validate(
    {"n": 4, "mean": 13.709, "p50": 14.732, "p90": 16.571, "p95": 16.571, "p99": 16.571, "max": 16.571} | _ESTIMATED
)
_QUEUE: Final = Distribution(n=3, mean=1.2, p50=0.9, p95=2.6, p99=2.6)
_COMPUTE: Final = Distribution(n=3, mean=10.1, p50=9.8, p95=12.4, p99=12.4)
_TOKENS: Final = Distribution(n=3, mean=18.0, p50=17.0, p95=24.0, p99=24.0)

ASKED: Final = AggregateRequest(window="1h", bucket="1h", group_by=["route"])
AGGREGATE: Final = Aggregate(
    range=_RANGE,
    requests=5,
    predictions=4,
    rate_limited=1,
    errors={},
    throughput_per_s=0.00111,
    error_rate=0.0,
    limited_rate=0.2,
    latency_ms=_LATENCY,
    labels=[LabelShare(label="NEGATIVE", count=3, share=0.75), LabelShare(label="POSITIVE", count=1, share=0.25)],
    confidence=Confidence(mean=0.96, histogram=[0, 0, 0, 0, 0, 0, 0, 0, 1, 3]),
    cached_share=0.25,
    computed_latency_ms=_LATENCY.model_copy(update={"n": 3}),
    queue_ms=_QUEUE,
    compute_ms=_COMPUTE,
    tokens=_TOKENS,
    previous=Summary(
        range=_BEFORE,
        requests=0,
        predictions=0,
        rate_limited=0,
        errors={},
        throughput_per_s=0.0,
        error_rate=None,
        limited_rate=None,
        latency_ms=_NO_LATENCY,
        labels=[],
        confidence=Confidence(histogram=[0] * 10),
    ),
    series=[SeriesPoint(at=_RANGE.start, requests=5, predictions=4, errors=0, rate_limited=1, p50=14.7, p95=16.6)],
    groups=[Group(key={"route": "/predict"}, requests=5, latency_ms=_LATENCY)],
    thresholds=[ThresholdState(rule=_RULE, current=16.571, breached=False)],
    lag_s=0.2,
)
THRESHOLDS: Final = Thresholds(rules=[_RULE])
HISTORY: Final = ThresholdHistory(
    versions=[ThresholdVersion(etag='"7"', at=_RANGE.start, document=THRESHOLDS)], cursor=7
)
ALERTS: Final = Alerts(
    alerts=[
        Alert(
            rule=_RULE,
            state="firing",
            value=812.5,
            fingerprint="c1b9fe60a7d2f0f6",
            pending_at=_RANGE.start,
            firing_at=_RANGE.start + timedelta(seconds=_RULE.for_s),
        )
    ],
    evaluated_at=_END,
    overdue=False,
)
DRIFT: Final = DriftReport(
    range=_RANGE,
    reference=_BEFORE,
    labels=Drift(n=400, reference_n=900, psi=0.31, noise=0.03, value=0.28, drifted=True),
    confidence=Drift(n=400, reference_n=900, psi=0.04, noise=0.05, value=0.0, drifted=False),
    length=Drift(n=400, reference_n=900, psi=0.02, noise=0.05, value=0.0, drifted=False),
    lag_s=0.2,
)
PREDICTIONS: Final = PredictionPage(
    predictions=[
        StoredPrediction(
            id="01a20bb1-f56a-74eb-ab6a-7aee04ea1360",
            at=_RANGE.start,
            route="/predict",
            outcome="ok",
            request_id="01a20bb1-f56a-74eb-ab6a-7aee04ea1360",
            trace_id=None,
            model="sluice-sentiment-minilm",
            revision="9680a671e92c",
            label="POSITIVE",
            score=0.9637638819531743,
            margin=0.9275277639063487,
            cached=False,
            truncated=False,
            latency_us=8505,
            queue_us=560,
            compute_us=3764,
            tokens=6,
            characters=17,
            client="2c70e12b7a0646f92279f427c7b38e73",
            text=None,
        )
    ],
    cursor=None,
)
PREDICTIONS_NDJSON: Final = "".join(f"{row.model_dump_json()}\n" for row in PREDICTIONS.predictions)
PREDICTIONS_CSV: Final = (
    f"{','.join(StoredPrediction.model_fields)}\r\n"
    '"01a20bb1-f56a-74eb-ab6a-7aee04ea1360","2026-11-24T11:00:00+00:00","/predict","ok",'
    '"01a20bb1-f56a-74eb-ab6a-7aee04ea1360","","sluice-sentiment-minilm","9680a671e92c","POSITIVE",'
    '"0.9637638819531743","0.9275277639063487","false","false","8505","560","3764","6","17",'
    '"2c70e12b7a0646f92279f427c7b38e73",""\r\n'
)
EVENT: Final = f"event: aggregate\ndata: {AGGREGATE.model_dump_json()}\n\n"
FEEDBACK: Final = FeedbackRequest.model_validate(
    {"feedback": [{"request_id": "01a20bb1-f56a-74eb-ab6a-7aee04ea1360", "index": 0, "label": "NEGATIVE"}]}
)
FEEDBACK_RESULTS: Final = FeedbackResponse(
    results=[FeedbackResult(status="recorded", prediction_id="01a20bb1-f56a-74eb-ab6a-7aee04ea1361")]
)

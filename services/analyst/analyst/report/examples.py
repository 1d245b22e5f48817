"""A report and its summary, for the OpenAPI document."""

from datetime import UTC, datetime, timedelta
from typing import Final

from analyst.report.models import Figure, Finding, Incident, Recommendation, Report, ReportSummary, TokenUsage, Windows
from common.contracts.windows import TimeRange

_END: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)
_ONSET: Final = _END - timedelta(minutes=12)
_P95: Final = {"metric": "latency_ms.p95", "method": "sketch", "rel_error": 0.01084}

REPORT: Final = Report(
    report_id="01a20bb1-fa54-7117-b8c3-d9a2f1dee730",
    generated_at=_END,
    status="degraded",
    summary="The service is degraded since 11:48:00 UTC. The p95 latency rose from 94 ms to 612 ms (+551%). Likely"
    " cause: texts are longer, so the model takes more time for each.",
    incident=Incident(onset=_ONSET, end=None),
    figures=[
        Figure.model_validate(_P95 | {"id": "f1", "window": "current", "value": 612.4, "unit": "ms", "n": 400}),
        Figure.model_validate(_P95 | {"id": "f2", "window": "previous", "value": 94.1, "unit": "ms", "n": 380}),
        Figure.model_validate(_P95 | {"id": "f4", "window": "delta_pct", "value": 550.8, "unit": "percent", "n": 380}),
    ],
    findings=[
        Finding(
            title="P95 latency rose",
            severity="warning",
            category="latency",
            detail="The p95 latency rose from 94 ms to 612 ms (+551%).",
            evidence=["f1", "f2", "f4"],
            cause="Texts are longer, so the model takes more time for each.",
            confidence="medium",
        )
    ],
    recommendations=[
        Recommendation(
            action="Add inference replicas.",
            priority="medium",
            how="kubectl scale deployment/inference --replicas=N, or docker compose up -d --scale inference=N",
        )
    ],
    interpretation="Latency follows the length of the texts, not the number of requests.",
    source="ai",
    fallback_reason=None,
    cache="miss",
    model="gemini-2.5-flash-lite",
    usage=TokenUsage(input_tokens=1840, output_tokens=96),
    prompt_version="7",
    metrics_digest="0f5e5061327e4694179093a78b09496d9d76632943dadd4fbd9d0ad2fdec47b8",
    windows=Windows(
        name="1h",
        current=TimeRange(start=_END - _HOUR, end=_END),
        previous=TimeRange(start=_END - 2 * _HOUR, end=_END - _HOUR),
    ),
    limitations=["Latency percentiles are estimates: relative error at most 1.08%."],
)
PAST: Final = ReportSummary(
    report_id=REPORT.report_id,
    generated_at=REPORT.generated_at,
    window=REPORT.windows.name,
    status=REPORT.status,
    source=REPORT.source,
    fallback_reason=REPORT.fallback_reason,
    model=REPORT.model,
    summary=REPORT.summary,
)

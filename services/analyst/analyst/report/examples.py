"""What a report looks like, for the specification."""

from datetime import UTC, datetime, timedelta
from typing import Final

from analyst.report.models import Figure, Finding, Grounding, Recommendation, Report, ReportSummary, Windows
from common.contracts.windows import TimeRange

_END: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
_HOUR: Final = timedelta(hours=1)

REPORT: Final = Report(
    report_id="01a20bb1-fa54-7117-b8c3-d9a2f1dee730",
    generated_at=_END,
    status="degraded",
    summary="The p95 latency is 612.4 ms, above its limit of 500 ms.",
    figures=[
        Figure(
            id="e1",
            metric="latency_ms.p95",
            window="current",
            value=612.4,
            unit="ms",
            method="exact",
            rel_error=0.0,
            n=400,
        ),
        Figure(
            id="e2",
            metric="latency_ms.p95",
            window="threshold",
            value=500.0,
            unit="ms",
            method="exact",
            rel_error=0.0,
            n=None,
        ),
    ],
    findings=[
        Finding(
            title="Latency above its limit",
            severity="warning",
            category="latency",
            detail="The p95 latency is 612.4 ms; the limit is 500 ms.",
            evidence=["e1", "e2"],
        )
    ],
    recommendations=[
        Recommendation(
            action="Add a replica of the inference service.",
            priority="medium",
            rationale="Texts wait for the model longer than it works on them.",
            evidence=["e1"],
        )
    ],
    source="rules",
    fallback_reason="no_key",
    cache="miss",
    model=None,
    prompt_version="1",
    metrics_digest="0f5e5061327e4694179093a78b09496d9d76632943dadd4fbd9d0ad2fdec47b8",
    windows=Windows(
        name="1h",
        current=TimeRange(start=_END - _HOUR, end=_END),
        previous=TimeRange(start=_END - 2 * _HOUR, end=_END - _HOUR),
    ),
    grounding=Grounding(references=2, refused_drafts=0, refusals=[]),
    limitations=["The window before has no requests: nothing can be compared."],
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

"""The report as it is stored and answered, and the draft it is made from; holds no figure that code did not resolve."""

from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from common.contracts.windows import TimeRange

SCHEMA_VERSION: Final = "1"
PROMPT_VERSION: Final = "6"

Status = Literal["healthy", "degraded", "critical", "insufficient_data"]
Severity = Literal["info", "warning", "critical"]
Category = Literal["latency", "errors", "traffic", "confidence", "data"]
Priority = Literal["low", "medium", "high"]
Reading = Literal["current", "previous", "delta_abs", "delta_pct", "threshold"]
"""Which number of a fact: in this window, in the one before, their difference, that in percent, or a rule's limit."""
Unit = Literal["count", "per_s", "share", "ms", "ratio", "score", "percent"]
FallbackReason = Literal[
    "no_key",
    "no_traffic",
    "cache_unavailable",
    "ungrounded",
    "quota",
    "blocked",
    "model_not_found",
    "upstream",
    "timeout",
]
NO_CALL: Final[frozenset[FallbackReason | None]] = frozenset({"no_key", "no_traffic", "cache_unavailable"})
"""No model was asked."""
CacheState = Literal["miss", "hit", "stale"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ---- a draft: what the rules or a model write; flat, without defaults or unions, so that any model API takes it


class Evidence(Frozen):
    """Prose cites this number as `{id}`; its value is looked up, never written."""

    id: Annotated[str, Field(description="e1, e2, …")]
    metric: Annotated[str, Field(description="A metric id from the input, such as latency_ms.p95.")]
    window: Reading


class Finding(Frozen):
    title: str
    severity: Severity
    category: Category
    detail: str
    evidence: Annotated[list[str], Field(description="Ids of the numbers that this rests on.")]


class Recommendation(Frozen):
    action: Annotated[str, Field(description="What to do, as an instruction.")]
    priority: Priority
    rationale: str
    evidence: Annotated[list[str], Field(description="Ids of the numbers that this rests on.")]


class Draft(Frozen):
    """Prose with references and no digits; the status is not the writer's to choose."""

    summary: str
    evidence: list[Evidence]
    findings: list[Finding]
    recommendations: list[Recommendation]


# ---- the report: a draft that passed the checker, its references replaced by values, and where it came from


class Figure(Frozen):
    """One number of the metrics service; `rel_error` bounds its error when `method` is `sketch`."""

    id: str
    metric: str
    window: Reading
    value: float
    unit: Unit
    method: Literal["exact", "sketch"]
    rel_error: float
    n: Annotated[
        int | None, Field(description="Observations behind the value; null where it has none or none are told.")
    ]


class Windows(Frozen):
    """What was compared: `name` is null for absolute times."""

    name: str | None
    current: TimeRange
    previous: TimeRange
    drift_reference: Annotated[
        TimeRange | None, Field(description="What drift was measured against; null where it was not measured.")
    ] = None


class Grounding(Frozen):
    """What the checker saw: references resolved, drafts refused before this one, and why."""

    references: int
    refused_drafts: int
    refusals: list[str]


class Report(Frozen):
    """A performance report; `findings` and `recommendations` name their figures in `evidence`."""

    schema_version: Literal["1"] = SCHEMA_VERSION
    report_id: str
    generated_at: AwareDatetime
    status: Annotated[
        Status,
        Field(description="By the worst that checks found; what has severity info, a breach too, leaves it healthy."),
    ]
    summary: str
    figures: list[Figure]
    findings: list[Finding]
    recommendations: list[Recommendation]
    source: Literal["ai", "rules"]
    fallback_reason: FallbackReason | None
    cache: CacheState
    model: str | None
    prompt_version: str
    metrics_digest: Annotated[str, Field(description="SHA-256 of what the metrics service told, figures and all.")]
    windows: Windows
    grounding: Grounding
    limitations: list[str]

    @property
    def is_worth_keeping(self) -> bool:
        """Not what rules write about absolute times: it costs no call to write again, and there is no end of times."""
        return self.source == "ai" or self.windows.name is not None


class ReportSummary(Frozen):
    """One line of the list of past reports; `window` is null for absolute times.

    What another version wrote may have words that this one does not know.
    """

    report_id: str
    generated_at: AwareDatetime
    window: str | None
    status: Annotated[str, Field(description="As in the report: healthy, degraded, critical, insufficient_data.")]
    source: Annotated[str, Field(description="As in the report: ai or rules.")]
    fallback_reason: Annotated[str | None, Field(description="As in the report.")]
    model: str | None
    summary: str

"""The report as it is stored and returned. Every figure was looked up, and code wrote all text but `interpretation`."""

from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from common.contracts.windows import TimeRange

SCHEMA_VERSION: Final = "2"
PROMPT_VERSION: Final = "7"

Status = Literal["healthy", "degraded", "critical", "insufficient_data"]
Severity = Literal["info", "warning", "critical"]
Category = Literal["latency", "errors", "traffic", "confidence", "data"]
Priority = Literal["low", "medium", "high"]
Confidence = Literal["low", "medium", "high"]
Reading = Literal["current", "previous", "delta_abs", "delta_pct", "threshold"]
"""Which number of a fact: this window's, the previous window's, their difference, that in percent, or the limit."""
Unit = Literal["count", "per_s", "share", "ms", "ratio", "score", "percent"]
FallbackReason = Literal[
    "no_key",
    "no_traffic",
    "cache_unavailable",
    "invalid_answer",
    "quota",
    "blocked",
    "truncated",
    "model_not_found",
    "upstream",
    "timeout",
]
NO_CALL: Final[frozenset[FallbackReason | None]] = frozenset({"no_key", "no_traffic", "cache_unavailable"})
"""Reasons for which the model was not called."""
CacheState = Literal["miss", "hit", "stale"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(Frozen):
    """One number of the metrics service. `rel_error` bounds its error when `method` is `sketch`."""

    id: str
    metric: str
    window: Reading
    value: float
    unit: Unit
    method: Literal["exact", "sketch"]
    rel_error: float
    n: Annotated[int | None, Field(description="Observations behind the value; null where there are none.")]


class Finding(Frozen):
    """What was observed, the figures it rests on, and its likely cause if one fits the observations."""

    title: str
    severity: Severity
    category: Category
    detail: str
    evidence: Annotated[list[str], Field(description="Ids of figures.")]
    cause: str | None
    confidence: Annotated[Confidence | None, Field(description="In the cause.")]


class Recommendation(Frozen):
    action: str
    priority: Priority
    how: Annotated[str, Field(description="A command, a request or a page of the documentation.")]


class Incident(Frozen):
    """When the headline's figure changed; `end` is null if the change lasts."""

    onset: AwareDatetime
    end: AwareDatetime | None


class Windows(Frozen):
    """What was compared. `name` is null for absolute times."""

    name: str | None
    current: TimeRange
    previous: TimeRange
    drift_reference: Annotated[TimeRange | None, Field(description="Null where drift was not measured.")] = None


class TokenUsage(Frozen):
    """Tokens of all calls for this report, as the provider counted them."""

    input_tokens: int
    output_tokens: int


class Report(Frozen):
    """A performance report. Findings name their figures in `evidence`."""

    schema_version: Literal["2"] = SCHEMA_VERSION
    report_id: str
    generated_at: AwareDatetime
    status: Annotated[Status, Field(description="By the most severe observation; info leaves it healthy.")]
    summary: str
    incident: Incident | None
    figures: list[Figure]
    findings: list[Finding]
    recommendations: Annotated[list[Recommendation], Field(description="At most three.")]
    interpretation: Annotated[
        str | None, Field(description="Written by the model and not verified, except that its figures were looked up.")
    ]
    source: Annotated[Literal["ai", "rules"], Field(description="What selected the findings and actions.")]
    fallback_reason: FallbackReason | None
    cache: CacheState
    model: Annotated[str | None, Field(description="The model that answered.")]
    usage: TokenUsage | None
    prompt_version: str
    metrics_digest: Annotated[str, Field(description="SHA-256 of the metrics that the report is about.")]
    windows: Windows
    limitations: list[str]

    @property
    def is_worth_keeping(self) -> bool:
        """Whether it belongs into the history: rule-based reports on absolute times can be repeated at no cost."""
        return self.source == "ai" or self.windows.name is not None


class ReportSummary(Frozen):
    """One line of the list of past reports. `window` is null for absolute times."""

    report_id: str
    generated_at: AwareDatetime
    window: str | None
    status: Annotated[str, Field(description="As in the report; older reports may have other words.")]
    source: str
    fallback_reason: str | None
    model: str | None
    summary: str

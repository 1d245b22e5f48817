"""The HTTP routes of reports, current and past: formats, headers and errors."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from aiohttp import hdrs, web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from analyst.cache.single_flight import FlightFailed, StoreUnavailable, TooManyComputations
from analyst.llm.quota import Quota
from analyst.llm.retry import Grant, QuotaUnavailable
from analyst.llm.state import ModelState
from analyst.report import examples
from analyst.report.markdown import to_markdown
from analyst.report.models import NO_CALL, FallbackReason, Report, ReportSummary
from analyst.report.store import ReportStore, ReportStoreUnavailable, ReportUnreadable
from analyst.service import METRICS_BROKEN, Analyst, Answer, MetricsSnapshot, Parameters, aggregate_request
from common.contracts.aggregates import AggregateRequest
from common.contracts.reports import AnalystHealth, ModelHealth
from common.http.app import ErrorTable, context
from common.http.context import RequestContext
from common.http.openapi import Header, operation, preferred
from common.http.problems import FieldError, Problem, retry_after, unavailable
from common.http.ratelimit import Limit, rate_limit_headers, too_many_requests, whole_seconds

MARKDOWN: Final = "text/markdown"
JSON: Final = "application/json"
NO_STORE: Final = "no-store"
ALIGNMENT_S: Final = 300
LONGEST: Final = timedelta(days=7)
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""The earliest time that the metrics service accepts."""
REPORT_ID: Final = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
QUOTA_POLICY: Final = "gemini"
CACHE_HEADERS: Final = (
    Header("X-Cache", "HIT, MISS or STALE.", "HIT"),
    Header(hdrs.AGE, "How many seconds old the report is.", "42"),
)

T = TypeVar("T")


class AnalysisRequest(BaseModel):
    """Either `window` (up to now) or both `start` and `end`, aligned to five minutes; the last hour when neither."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: Literal["5m", "15m", "1h", "6h", "24h", "7d"] | None = None
    start: Annotated[AwareDatetime, Field(ge=EARLIEST)] | None = None
    end: Annotated[AwareDatetime, Field(ge=EARLIEST)] | None = None
    require_ai: bool = Field(default=False, description="Refuse a report that was written by rules.")

    @model_validator(mode="after")
    def _one_window(self) -> Self:
        if (self.start is None) != (self.end is None):
            raise ValueError("set both start and end")
        if self.start is None or self.end is None:
            return self
        if self.window is not None:
            raise ValueError("set either window or start and end")
        if any(moment.timestamp() % ALIGNMENT_S for moment in (self.start, self.end)):
            raise ValueError("start and end must be aligned to 5 minutes")
        if not timedelta(0) < self.end - self.start <= LONGEST:
            raise ValueError("end must be after start, by at most 7 days")
        return self

    def parameters(self) -> Parameters:
        if self.start is not None:
            return Parameters(start=self.start, end=self.end)
        return Parameters(window=self.window or "1h")


class PageRequest(BaseModel):
    """`cursor` is that of the page before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[str, Field(pattern=REPORT_ID)] | None = None


class Page(BaseModel):
    """Reports, newest first; `cursor` is null on the last page."""

    reports: list[ReportSummary]
    cursor: str | None


class ReportPath(BaseModel):
    """Which report."""

    report_id: Annotated[str, Field(pattern=REPORT_ID, examples=[examples.REPORT.report_id])]


class Invalidated(BaseModel):
    """The number of dropped reports."""

    deleted: int


@dataclass(frozen=True, slots=True)
class ApiDeps:
    """What the routes call: `invalidate` drops all cached reports and returns how many; `served` counts."""

    analyst: Analyst
    measured: Callable[[AggregateRequest, RequestContext], Awaitable[MetricsSnapshot]]
    invalidate: Callable[[], Coroutine[Any, Any, int]]
    served: Callable[[Report, bool, float], None]
    archive: Callable[[], ReportStore | None]
    model: ModelState
    quota: Quota
    retry_after_s: float


def error_table(retry_after_s: float) -> ErrorTable:
    """Return the problem of each domain error."""
    return {
        FlightFailed: lambda error: _failed(error, retry_after_s),
        ReportStoreUnavailable: lambda _: unavailable("The database of past reports is not reachable.", retry_after_s),
        ReportUnreadable: lambda _: Problem(
            404, "The report was written by another version of this service; this one cannot read it."
        ),
        TooManyComputations: lambda _: unavailable("Too many different reports are being made.", 1),
        StoreUnavailable: lambda _: unavailable("The report cache is not reachable.", retry_after_s),
    }


def add_routes(app: web.Application, deps: ApiDeps) -> None:
    """POST /analyze/performance, DELETE /analyze/cache, GET /analyze/reports, one of them, and /analyze/health."""

    @operation(
        body=AnalysisRequest,
        response=Report,
        media={MARKDOWN: to_markdown(examples.REPORT)},
        errors=(429, 502, 503, 504),
        tag="analyst",
        examples=[AnalysisRequest(window="1h"), examples.REPORT],
        response_headers=CACHE_HEADERS,
    )
    async def analyze_performance(request: web.Request, body: AnalysisRequest) -> web.StreamResponse:
        """Report on the service's performance in a window.

        Concurrent requests for the same window share one computation. `X-Cache` is HIT, MISS or STALE, and `Age` is
        the report's age in seconds. Every figure is looked up in the metrics, never written by a model. Send
        `Accept: text/markdown` for the report as text.
        """
        started = time.monotonic()
        answer = await _report(deps, context(request), body)
        deps.served(answer.report, answer.is_shared, time.monotonic() - started)
        headers = {"X-Cache": answer.report.cache.upper(), hdrs.AGE: str(math.floor(answer.age_s))}
        slot = deps.quota.last
        if slot is not None and answer.report.cache == "miss" and answer.report.fallback_reason not in NO_CALL:
            limit = _quota_limit(deps.quota, slot)
            headers |= dict(rate_limit_headers(limit))
        return _response(answer.report, answer.body, request, headers)

    @operation(response=Invalidated, errors=(503, 504), tag="analyst", examples=[Invalidated(deleted=3)])
    async def delete_analysis_cache(request: web.Request) -> Invalidated:
        """Drop all cached reports, and do not cache those being computed."""
        return Invalidated(deleted=await _within(context(request), deps.invalidate()))

    @operation(
        query=PageRequest,
        response=Page,
        errors=(503, 504),
        tag="analyst",
        examples=[Page(reports=[examples.PAST], cursor=None)],
    )
    async def list_reports(request: web.Request, query: PageRequest) -> web.Response:
        """List past reports, the newest first."""
        page = _archive(deps).page(query.cursor, query.limit + 1)
        found = await _within(context(request), page)
        reports = found[: query.limit]
        listed = Page(reports=reports, cursor=reports[-1].report_id if len(found) > query.limit else None)
        headers = {hdrs.CACHE_CONTROL: NO_STORE}
        return web.Response(body=listed.model_dump_json().encode(), content_type=JSON, headers=headers)

    @operation(
        path=ReportPath,
        response=Report,
        media={MARKDOWN: to_markdown(examples.REPORT)},
        errors=(404, 503, 504),
        tag="analyst",
        examples=[examples.REPORT],
    )
    async def get_report(request: web.Request, path: ReportPath) -> web.StreamResponse:
        """Get a past report as it was made."""
        report = await _within(context(request), _archive(deps).get(path.report_id))
        if report is None:
            raise Problem(404, "No such report is kept.")
        return _response(report, report.model_dump_json().encode(), request, {})

    @operation(
        response=AnalystHealth,
        tag="analyst",
        examples=[AnalystHealth(status="ok", model=ModelHealth(name="gemini-2.5-flash-lite", state="ok"))],
    )
    async def get_analyst_health(_request: web.Request) -> AnalystHealth:
        """Return the model's state as this replica last saw it. Sends no request."""
        model = deps.model
        return AnalystHealth(status="degraded" if model.is_degraded else "ok", model=model.health)

    app.router.add_get("/analyze/reports", list_reports)
    app.router.add_get("/analyze/reports/{report_id}", get_report)
    app.router.add_get("/analyze/health", get_analyst_health)
    app.router.add_post("/analyze/performance", analyze_performance)
    app.router.add_delete("/analyze/cache", delete_analysis_cache)


async def _report(deps: ApiDeps, origin: RequestContext, body: AnalysisRequest) -> Answer:
    if body.end is not None and body.end > datetime.now(UTC):
        error = FieldError(location="body", field="end", message="must not be in the future")
        raise Problem(422, "The request is well-formed but not valid.", title="Invalid request", errors=[error])
    if body.require_ai and not deps.analyst.has_model:
        raise Problem(503, "No GEMINI_API_KEY is set, so no AI report can be made.")
    parameters = body.parameters()
    query = aggregate_request(parameters)
    report = deps.analyst.report(parameters, lambda: deps.measured(query, origin))
    answer = await _within(origin, report)
    if body.require_ai and answer.report.source != "ai":
        raise await _no_ai(deps, answer.report.fallback_reason)
    return answer


async def _no_ai(deps: ApiDeps, reason: FallbackReason | None) -> Problem:
    """Return 429 with the time until a call is free if the quota is the reason, otherwise 503."""
    if reason == "quota":
        with suppress(QuotaUnavailable):
            slot = await deps.quota.look()
            limit = _quota_limit(deps.quota, slot)
            return too_many_requests(limit, "The quota of calls to the model is used up.")
    return unavailable(f"No AI report can be made now ({reason}).", deps.retry_after_s)


def _quota_limit(quota: Quota, slot: Grant) -> Limit:
    """Return the quota's state. The time until it resets is known only while no calls are left."""
    reset_s = None if slot.remaining or not slot.wait_s else whole_seconds(slot.wait_s)
    return Limit(QUOTA_POLICY, quota.limit, whole_seconds(quota.window_s), slot.remaining, reset_s)


def _archive(deps: ApiDeps) -> ReportStore:
    archive = deps.archive()
    if archive is None:
        raise Problem(503, "DATABASE_URL is not set, so no reports are stored.")
    return archive


async def _within(origin: RequestContext, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, or raise 504 at the client's deadline."""
    try:
        async with asyncio.timeout(max(0.0, origin.remaining_s(time.monotonic()))):
            return await work
    except TimeoutError as error:
        raise Problem(504, "Not ready before the deadline; ask again.") from error


def _response(report: Report, body: bytes, request: web.Request, headers: dict[str, str]) -> web.Response:
    headers |= {hdrs.VARY: hdrs.ACCEPT, hdrs.CACHE_CONTROL: NO_STORE}
    if preferred(request.headers.getall(hdrs.ACCEPT, ()), (JSON, MARKDOWN)) == MARKDOWN:
        return web.Response(text=to_markdown(report), content_type=MARKDOWN, charset="utf-8", headers=headers)
    return web.Response(body=body, content_type=JSON, headers=headers)


def _failed(error: FlightFailed, retry_after_s: float) -> Problem:
    if error.code == METRICS_BROKEN:
        detail = "The metrics service gave an answer that its contract does not allow."
        return Problem(502, detail, headers=retry_after(retry_after_s))
    details = {
        "timeout": "The report was not ready in time.",
        "metrics_unavailable": "The metrics service is not reachable, and no earlier report is kept.",
    }
    return unavailable(details.get(error.code, "The report could not be made."), retry_after_s)

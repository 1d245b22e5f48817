"""The HTTP door: POST /analyze/performance and DELETE /analyze/cache; decides formats and headers, computes nothing."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self, TypeVar

from aiohttp import hdrs, web
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from analyst.analysis import METRICS_BROKEN, Analyst, Answer, Parameters
from analyst.flight import FlightFailed, FlightsFull, StoreUnavailable
from analyst.markdown import to_markdown
from analyst.report import CacheState, Report
from common.contracts import Aggregate, AggregateRequest
from common.openapi import operation
from common.problems import FieldError, Problem, unavailable
from common.requests import RequestContext
from common.web import ErrorTable, context

MARKDOWN: Final = "text/markdown"
JSON: Final = "application/json"
ALIGNMENT_S: Final = 300
LONGEST: Final = timedelta(days=7)

T = TypeVar("T")


class AnalysisRequest(BaseModel):
    """Either `window` (up to now) or both `start` and `end`, aligned to five minutes; the last hour when neither."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: Literal["5m", "15m", "1h", "6h", "24h", "7d"] | None = None
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
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


class Invalidated(BaseModel):
    """How many reports were dropped."""

    deleted: int


@dataclass(frozen=True, slots=True)
class Doorway:
    """What the routes call: `invalidate` drops all cached reports and returns how many; `served` counts."""

    analyst: Analyst
    aggregated: Callable[[AggregateRequest, RequestContext], Awaitable[Aggregate]]
    invalidate: Callable[[], Coroutine[Any, Any, int]]
    served: Callable[[CacheState, float], None]
    retry_after_s: float
    today: Callable[[], datetime] = lambda: datetime.now(UTC)
    now: Callable[[], float] = time.monotonic


def error_table(retry_after_s: float) -> ErrorTable:
    """Which problem each domain error becomes."""
    return {
        FlightFailed: lambda error: _failed(error, retry_after_s),
        FlightsFull: lambda _: unavailable("Too many different reports are being made.", 1),
        StoreUnavailable: lambda _: unavailable("The report cache is not reachable.", retry_after_s),
    }


def add_routes(app: web.Application, doorway: Doorway) -> None:
    """POST /analyze/performance, DELETE /analyze/cache."""

    @operation(body=AnalysisRequest, response=Report, media=(JSON, MARKDOWN), errors=(502, 503, 504), tag="analyst")
    async def analyze_performance(request: web.Request, body: AnalysisRequest) -> web.StreamResponse:
        """Report on the service's performance in a window.

        One computation serves everybody who asks for the same window; `X-Cache` says HIT, MISS or STALE, `Age` how old
        the report is in seconds. Every figure is looked up in the metrics, never written by a model. Send
        `Accept: text/markdown` for the report as text.
        """
        started = doorway.now()
        answer = await _report(doorway, context(request), body)
        doorway.served(answer.report.cache, doorway.now() - started)
        return _response(answer, request.headers.get(hdrs.ACCEPT, ""))

    @operation(response=Invalidated, errors=(503, 504), tag="analyst")
    async def delete_analysis_cache(request: web.Request) -> Invalidated:
        """Drop all cached reports; what is being computed now is not kept."""
        return Invalidated(deleted=await _within(doorway, context(request), doorway.invalidate()))

    app.router.add_post("/analyze/performance", analyze_performance)
    app.router.add_delete("/analyze/cache", delete_analysis_cache)


async def _report(doorway: Doorway, origin: RequestContext, body: AnalysisRequest) -> Answer:
    if body.end is not None and body.end > doorway.today():
        error = FieldError(location="body", field="end", message="must not be in the future")
        raise Problem(422, "The request is well-formed but not valid.", title="Invalid request", errors=[error])
    if body.require_ai and not doorway.analyst.has_model:
        raise Problem(503, "No GEMINI_API_KEY is set, so that no AI report can be made.")
    parameters = body.parameters()
    query = AggregateRequest(window=parameters.window, start=parameters.start, end=parameters.end)
    report = doorway.analyst.report(parameters, lambda: doorway.aggregated(query, origin))
    answer = await _within(doorway, origin, report)
    if body.require_ai and answer.report.source != "ai":
        reason = answer.report.fallback_reason
        raise unavailable(f"No AI report can be made now ({reason}).", doorway.retry_after_s)
    return answer


async def _within(doorway: Doorway, origin: RequestContext, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, or 504 at the client's deadline."""
    try:
        async with asyncio.timeout(max(0.0, origin.remaining_s(doorway.now()))):
            return await work
    except TimeoutError as error:
        raise Problem(504, "Not ready before the deadline; ask again.") from error


def _response(answer: Answer, accept: str) -> web.Response:
    headers = {
        "X-Cache": answer.report.cache.upper(),
        hdrs.AGE: str(math.floor(answer.age_s)),
        hdrs.VARY: hdrs.ACCEPT,
        hdrs.CACHE_CONTROL: "no-store",
    }
    if _prefers_markdown(accept):
        return web.Response(text=to_markdown(answer.report), content_type=MARKDOWN, charset="utf-8", headers=headers)
    return web.Response(body=answer.report.model_dump_json().encode(), content_type=JSON, headers=headers)


def _prefers_markdown(accept: str) -> bool:
    """Markdown only for who asks for it at least as much as for JSON."""
    weights = {}
    for part in accept.lower().split(","):
        media, *options = (piece.strip() for piece in part.split(";"))
        quality = next((option[2:] for option in options if option.startswith("q=")), "1")
        weights[media] = float(quality) if quality.replace(".", "", 1).isdecimal() else 0.0
    return weights.get(MARKDOWN, 0.0) > 0 and weights[MARKDOWN] >= weights.get(JSON, 0.0)


def _failed(error: FlightFailed, retry_after_s: float) -> Problem:
    if error.code == METRICS_BROKEN:
        headers = {"Retry-After": str(max(1, math.ceil(retry_after_s)))}
        return Problem(502, "The metrics service answered what its contract does not allow.", headers=headers)
    details = {
        "timeout": "The report was not ready in time.",
        "metrics_unavailable": "The metrics service is not reachable, and no earlier report is kept.",
    }
    return unavailable(details.get(error.code, "The report could not be made."), retry_after_s)

"""The routes of the metrics service: HTTP in, HTTP out, and which named error becomes which problem."""

import asyncio
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

import structlog
from aiohttp import hdrs, web
from pydantic import Field

from common.contracts import Aggregate, AggregateRequest, Body
from common.openapi import operation
from common.problems import FieldError, Problem, unavailable
from common.web import ErrorTable, context
from metrics.aggregates import Aggregates
from metrics.errors import InvalidField, StoreUnavailable, VersionConflict
from metrics.rollups import Rollups
from metrics.threshold_store import ThresholdStore, Versioned
from metrics.thresholds import Thresholds

log = structlog.get_logger()

RETRY_AFTER_S: Final = 2.0  # about what a restart of PostgreSQL takes


@dataclass(frozen=True, slots=True)
class Resources:
    """What the handlers need; it exists from start-up to shutdown."""

    rollups: Rollups
    aggregates: Aggregates
    thresholds: ThresholdStore


RESOURCES: Final = web.AppKey("resources", Resources)


class Count(Body):
    """How many predictions were answered since the beginning."""

    count: Annotated[int, Field(ge=0)]


def routes() -> Iterable[web.RouteDef]:
    return (
        web.get("/metrics/count", count_predictions),
        web.post("/metrics/aggregated", aggregate),
        web.get("/metrics/thresholds", read_thresholds),
        web.put("/metrics/thresholds", replace_thresholds),
    )


@operation(response=Count, errors=(503, 504), tag="metrics")
async def count_predictions(request: web.Request) -> Count:
    """Count answered predictions.

    Exact: each prediction that was answered counts once, whatever was restarted in between.
    """
    async with _deadline(request):
        return Count(count=await request.app[RESOURCES].rollups.count())


@operation(body=AggregateRequest, response=Aggregate, errors=(503, 504), tag="metrics")
async def aggregate(request: web.Request, *, body: AggregateRequest) -> Aggregate:
    """Aggregate predictions over a window.

    Counts are exact. Latency percentiles are exact while few predictions are in the window, else from a histogram:
    `method` and `relative_error` say which. `range` is what was asked for; where it reaches back to days of which
    single events are kept no longer, its edges are widened to whole minutes. The first and the last point of the
    series cover only that part of their bucket which lies in the range. Thresholds are judged over their own windows
    up to now, unfiltered. `lag_s` is null while the stream of new events cannot be asked.
    """
    async with _deadline(request):
        return await request.app[RESOURCES].aggregates.answer(body)


@operation(response=Thresholds, errors=(503, 504), tag="thresholds")
async def read_thresholds(request: web.Request) -> web.Response:
    """Read the thresholds.

    The `ETag` of the answer is what `If-Match` of a PUT takes.
    """
    async with _deadline(request):
        return _document(await request.app[RESOURCES].thresholds.get())


@operation(body=Thresholds, response=Thresholds, errors=(412, 428, 503, 504), tag="thresholds")
async def replace_thresholds(request: web.Request, *, body: Thresholds) -> web.Response:
    """Replace all thresholds.

    `If-Match` must hold the `ETag` that was read, or `*` to replace any version; it may be absent only while the
    defaults are in force. Versions that were replaced are kept.
    """
    async with _deadline(request):
        expected = _expected(request)
        try:
            return _document(await request.app[RESOURCES].thresholds.replace(body, expected=expected))
        except VersionConflict:
            if hdrs.IF_MATCH in request.headers:
                raise
            raise Problem(428, "Send If-Match with the ETag of the thresholds that you read, or *.") from None


ERRORS: Final[ErrorTable] = {
    StoreUnavailable: lambda error: _store_unavailable(error),
    InvalidField: lambda error: Problem(
        422,
        "The request is well-formed but not valid.",
        title="Invalid request",
        errors=[FieldError(location="body", field=error.field, message=error.message)],
    ),
    VersionConflict: lambda _: Problem(412, "The thresholds changed since they were read; read them again."),
    TimeoutError: lambda _: Problem(504, "The answer was not ready before the deadline."),
}


def _store_unavailable(error: StoreUnavailable) -> Problem:
    log.warning("store not available", reason=str(error))
    return unavailable("The database cannot be reached now.", RETRY_AFTER_S)


def _deadline(request: web.Request) -> asyncio.Timeout:
    return asyncio.timeout(max(0.0, context(request).remaining_s(time.monotonic())))


def _expected(request: web.Request) -> frozenset[int] | None:
    """Versions that the caller is willing to replace; None means any."""
    tags = [tag.strip() for tag in request.headers.get(hdrs.IF_MATCH, '"0"').split(",")]
    if "*" in tags:
        return None
    return frozenset(int(tag[1:-1]) for tag in tags if re.fullmatch(r'"[0-9]{1,18}"', tag, re.ASCII))


def _document(thresholds: Versioned) -> web.Response:
    return web.Response(
        body=thresholds.document.model_dump_json(exclude_none=True).encode(),
        content_type="application/json",
        headers={hdrs.ETAG: f'"{thresholds.version}"'},
    )

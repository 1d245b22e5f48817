"""The HTTP routes of the metrics service, and the problem for each of its errors."""

import re
import time
from collections.abc import Iterable
from typing import Annotated, Final

import structlog
from aiohttp import hdrs, web
from pydantic import AwareDatetime, Field

from common.contracts.aggregates import Aggregate, AggregateRequest, Bucket, DriftReport, Filters
from common.contracts.events import Outcome
from common.contracts.feedback import FeedbackRequest, FeedbackResponse
from common.contracts.thresholds import Alerts
from common.contracts.windows import Body, Window
from common.http.app import ErrorTable
from common.http.openapi import Header, operation
from common.http.problems import FieldError, Problem, unavailable
from common.http.ratelimit import too_many_at_once
from metrics.alerting.rule_store import Versioned
from metrics.alerting.rules import ThresholdHistory, Thresholds, check_limits
from metrics.api import examples
from metrics.api.predictions import read_predictions
from metrics.api.resources import RESOURCES, deadline, invalid_field, query_errors
from metrics.api.stream import stream_aggregates
from metrics.errors import InvalidField, StoreUnavailable, TooManyFollowers, TooManyOfOneClient, VersionConflict
from metrics.ranges import SECOND, Range, asked_range, asked_reference, span

log = structlog.get_logger()

RETRY_AFTER_S: Final = 2.0  # about the time of a PostgreSQL restart


ETAG: Final = Header("ETag", "The version of the thresholds.", '"7"')
_NO_VERSION: Final = (
    'If-Match names no version: send the ETag with its quotes, such as "7". A weak one (W/"7") never matches; a proxy '
    "that packs answers makes them so."
)
IF_MATCH: Final = Header("If-Match", "The ETag that was read, or `*` for any version.", "*")


class Count(Body):
    """The number of predictions ever answered."""

    count: Annotated[int, Field(ge=0)]


def routes() -> Iterable[web.RouteDef]:
    return (
        web.get("/metrics/count", count_predictions),
        web.post("/metrics/aggregated", aggregate),
        web.get("/metrics/aggregated", read_aggregate),
        web.get("/metrics/thresholds", read_thresholds),
        web.put("/metrics/thresholds", replace_thresholds),
        web.get("/metrics/thresholds/history", read_history),
        web.get("/metrics/alerts", read_alerts),
        web.get("/metrics/drift", measure_drift),
        web.get("/metrics/predictions", read_predictions),
        web.post("/metrics/feedback", record_feedback),
        web.get("/metrics/stream", stream_aggregates, allow_head=False),
    )


@operation(response=Count, errors=(503, 504), tag="metrics", examples=[Count(count=1_234_567)])
async def count_predictions(request: web.Request) -> Count:
    """Count answered predictions.

    Exact: each answered prediction counts once, even if services or stores were restarted.
    """
    async with deadline(request):
        return Count(count=await request.app[RESOURCES].rollups.count())


@operation(
    body=AggregateRequest,
    response=Aggregate,
    errors=(503, 504),
    tag="metrics",
    examples=[examples.ASKED, examples.AGGREGATE],
)
async def aggregate(request: web.Request, *, body: AggregateRequest) -> Aggregate:
    """Aggregate predictions over a window.

    Counts, sums and maxima are exact. Percentiles come from histograms and are within 1.09 %. `range` is the
    requested range, widened to whole rollups: ten seconds within the last two hours, minutes before. The first and
    the last point of the series cover only the part of their bucket inside the range. Thresholds are evaluated over
    their own windows up to now, without the filters. `lag_s` is null while the event stream cannot be read.
    """
    async with deadline(request):
        return await request.app[RESOURCES].shared.answer(body)


class AggregateQuery(Body):
    """Either `window` (up to now; the last hour if nothing is given) or both `start` and `end`."""

    window: Window | None = None
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    bucket: Bucket | None = None
    group_by: Annotated[
        str | None,
        Field(pattern=r"^(model|label|outcome|route)(,(model|label|outcome|route)){0,3}$", description="With commas."),
    ] = None
    model: Annotated[str | None, Field(max_length=128)] = None
    route: Annotated[str | None, Field(max_length=64)] = None
    label: Annotated[str | None, Field(max_length=64)] = None
    outcome: Outcome | None = None

    def request(self) -> AggregateRequest:
        range = span(self.window, self.start, self.end, "1h")
        group_by = self.group_by.split(",") if self.group_by else []
        filters = Filters(model=self.model, route=self.route, label=self.label, outcome=self.outcome)
        return AggregateRequest.model_validate(
            range.model_dump() | {"bucket": self.bucket, "group_by": group_by, "filters": filters}
        )


@operation(query=AggregateQuery, response=Aggregate, errors=(503, 504), tag="metrics", examples=[examples.AGGREGATE])
async def read_aggregate(request: web.Request, *, query: AggregateQuery) -> Aggregate:
    """Aggregate predictions over a window, as POST does.

    Equal queries within a second share one response.
    """
    with query_errors():
        async with deadline(request):
            return await request.app[RESOURCES].shared.answer(query.request())


@operation(
    response=Thresholds, errors=(503, 504), tag="thresholds", examples=[examples.THRESHOLDS], response_headers=[ETAG]
)
async def read_thresholds(request: web.Request) -> web.Response:
    """Read the thresholds.

    Send the `ETag` of the response as `If-Match` of a PUT.
    """
    async with deadline(request):
        return _document(await request.app[RESOURCES].thresholds.get())


@operation(
    body=Thresholds,
    response=Thresholds,
    errors=(412, 428, 503, 504),
    tag="thresholds",
    examples=[examples.THRESHOLDS],
    request_headers=[IF_MATCH],
    response_headers=[ETAG],
)
async def replace_thresholds(request: web.Request, *, body: Thresholds) -> web.Response:
    """Replace all thresholds.

    `If-Match` must be the `ETag` that was read, or `*` to replace any version. It may be absent only while the
    defaults apply. Replaced versions are kept.
    """
    check_limits(body)
    async with deadline(request):
        expected = _expected(request)
        try:
            written = await request.app[RESOURCES].thresholds.replace(body, expected=expected)
            request.app[RESOURCES].shared.forget()
            return _document(written)
        except VersionConflict:
            if hdrs.IF_MATCH not in request.headers:
                raise _precondition(428, "Send If-Match with the ETag of the thresholds that you read, or *.") from None
            if not expected:
                raise _precondition(412, _NO_VERSION) from None
            raise


class HistoryQuery(Body):
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: Annotated[int | None, Field(ge=1, le=10**18, description="`cursor` of the page before.")] = None


@operation(
    query=HistoryQuery, response=ThresholdHistory, errors=(503, 504), tag="thresholds", examples=[examples.HISTORY]
)
async def read_history(request: web.Request, *, query: HistoryQuery) -> ThresholdHistory:
    """List all written versions of the thresholds, newest first.

    The first one applies now. Before the oldest, the defaults applied.
    """
    async with deadline(request):
        return await request.app[RESOURCES].thresholds.history(limit=query.limit, before=query.cursor)


@operation(response=Alerts, errors=(503, 504), tag="thresholds", examples=[examples.ALERTS])
async def read_alerts(request: web.Request) -> Alerts:
    """List alerts: firing, pending, and the most recently resolved.

    An alert keeps its state while its window has too few samples, and while late events could move a count across
    its limit.
    """
    async with deadline(request):
        return await request.app[RESOURCES].alerts.alerts()


class DriftQuery(Body):
    """Either `window` (up to now; the last hour if nothing is given) or both `start` and `end`."""

    window: Window | None = None
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    reference: Annotated[Window, Field(description="How long the stretch is that it is compared with.")] = "24h"
    reference_end: Annotated[
        AwareDatetime | None, Field(description="When that stretch ends; if absent, where the range starts.")
    ] = None
    model: Annotated[str | None, Field(max_length=128)] = None
    route: Annotated[str | None, Field(max_length=64)] = None

    def ranges(self, now_us: int) -> tuple[Range, Range]:
        """Return the requested range and its reference. Raises InvalidField."""
        asked = asked_range(span(self.window, self.start, self.end, "1h"), now_us)
        return asked, asked_reference(asked, self.reference, self.reference_end)


@operation(query=DriftQuery, response=DriftReport, errors=(503, 504), tag="metrics", examples=[examples.DRIFT])
async def measure_drift(request: web.Request, *, query: DriftQuery) -> DriftReport:
    """Compare labels, confidence and text lengths with a reference range.

    `drifted` is true when the population stability index is larger than chance explains by 0.1 or more.
    """
    with query_errors():
        range, reference = query.ranges(int(time.time() * SECOND))
    async with deadline(request):
        filters = Filters(model=query.model, route=query.route)
        return await request.app[RESOURCES].aggregates.drift(range, reference, filters)


@operation(
    body=FeedbackRequest,
    response=FeedbackResponse,
    errors=(503, 504),
    tag="predictions",
    examples=[examples.FEEDBACK, examples.FEEDBACK_RESULTS],
)
async def record_feedback(request: web.Request, *, body: FeedbackRequest) -> FeedbackResponse:
    """Record true labels.

    Each prediction has one true label: the last one sent. Sending the same one again changes nothing. Aggregates
    compare true labels with predicted ones. Feedback is accepted as long as the prediction is stored.
    """
    async with deadline(request):
        return FeedbackResponse(results=await request.app[RESOURCES].feedback.record(body.feedback))


ERRORS: Final[ErrorTable] = {
    StoreUnavailable: lambda error: _store_unavailable(error),
    InvalidField: lambda error: invalid_field(error, "body"),
    VersionConflict: lambda _: _precondition(412, "The thresholds changed since they were read; read them again."),
    TooManyFollowers: lambda _: unavailable("The live stream has its maximum of clients.", RETRY_AFTER_S),
    TooManyOfOneClient: lambda _: too_many_at_once(
        "streams",
        "Your address has as many open streams as allowed; close one, or poll POST /metrics/aggregated.",
        RETRY_AFTER_S,
    ),
    TimeoutError: lambda _: Problem(504, "The answer was not ready before the deadline."),
}


def _store_unavailable(error: StoreUnavailable) -> Problem:
    log.warning("store not available", reason=str(error))
    return unavailable("The database cannot be reached now.", RETRY_AFTER_S)


def _precondition(status: int, message: str) -> Problem:
    error = FieldError(location="header", field=hdrs.IF_MATCH, message=message)
    return Problem(status, message, errors=[error])


def _expected(request: web.Request) -> frozenset[int] | None:
    """Return the versions that the caller accepts to replace; None means any."""
    tags = [tag.strip() for tag in ",".join(request.headers.getall(hdrs.IF_MATCH, ('"0"',))).split(",")]
    if "*" in tags:
        return None
    return frozenset(int(tag[1:-1]) for tag in tags if re.fullmatch(r'"[0-9]{1,18}"', tag, re.ASCII))


def _document(thresholds: Versioned) -> web.Response:
    return web.Response(
        body=thresholds.document.model_dump_json(exclude_none=True).encode(),
        content_type="application/json",
        headers={hdrs.ETAG: thresholds.etag},
    )

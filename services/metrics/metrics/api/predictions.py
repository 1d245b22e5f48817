"""GET /metrics/predictions: pages as JSON, or everything as a stream of CSV or NDJSON."""

import asyncio
import csv
import io
import re
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Final

from aiohttp import hdrs, web
from pydantic import AwareDatetime, Field

from common.contracts.aggregates import PredictionPage, StoredPrediction
from common.contracts.events import Outcome
from common.contracts.feedback import Id
from common.contracts.windows import Body, Window
from common.http.openapi import operation, preferred
from metrics.api import examples
from metrics.api.resources import RESOURCES, deadline, query_errors
from metrics.errors import InvalidField
from metrics.query.feedback import around
from metrics.query.predictions import Order, RowFilters
from metrics.ranges import SECOND, Range, asked_range, span

EXPORT_ROWS: Final = 5_000  # in memory at once
LONGEST_SCAN_S: Final = 86_400
STALL_S: Final = 60.0  # a client that reads less than one slice in this time is disconnected
SLICE_BYTES: Final = 1 << 16
CSV: Final = "text/csv"
NDJSON: Final = "application/x-ndjson"
_JSON: Final = "application/json"
_COLUMNS: Final = tuple(StoredPrediction.model_fields)
_FORMULA: Final = re.compile(r'^(?=[\t\r])|(?:^|(?<=[;|\t\r\n]))(?=[ "\f\v]*[=+@-])')
"""Positions where a spreadsheet could start a formula, including those that split at semicolons or tabs and
ignore quotes inside a line."""
_NO_NUL: Final = r"^[^\x00]*$"  # PostgreSQL rejects NUL


class PredictionsQuery(Body):
    """Either `window` (up to now; the last 24 hours if nothing is given) or both `start` and `end`."""

    window: Window | None = None
    start: AwareDatetime | None = None
    end: AwareDatetime | None = None
    model: Annotated[str, Field(max_length=128, pattern=_NO_NUL)] | None = None
    route: Annotated[str, Field(max_length=64, pattern=_NO_NUL)] | None = None
    label: Annotated[str, Field(max_length=64, pattern=_NO_NUL)] | None = None
    outcome: Outcome | None = None
    request_id: Annotated[Id | None, Field(description="Found at any time; the range is not used.")] = None
    client: Annotated[str, Field(max_length=64, pattern=_NO_NUL)] | None = None
    min_score: Annotated[float | None, Field(ge=0, le=1)] = None
    max_score: Annotated[float | None, Field(ge=0, le=1)] = None
    order: Annotated[Order, Field(description="`score`: one page of the least confident.")] = "time"
    limit: Annotated[int, Field(ge=1, le=1_000)] = 100
    cursor: Annotated[str | None, Field(max_length=64, description="`cursor` of the page before.")] = None

    def filters(self) -> RowFilters:
        return RowFilters.model_validate(self.model_dump(include=set(RowFilters.model_fields)))

    def range(self, now_us: int) -> Range:
        """Raises InvalidField."""
        if self.request_id is not None:
            return around(self.request_id)
        asked = asked_range(span(self.window, self.start, self.end, "24h"), now_us)
        if (self.order == "score" or self.filters().is_unindexed) and asked.seconds > LONGEST_SCAN_S:
            raise InvalidField("window", "With client, score or order=score the range is at most 24 hours.")
        return asked


@operation(
    query=PredictionsQuery,
    response=PredictionPage,
    errors=(503, 504),
    tag="predictions",
    media={
        CSV: examples.PREDICTIONS_CSV,
        NDJSON: examples.PREDICTIONS_NDJSON,
    },
    examples=[examples.PREDICTIONS],
)
async def read_predictions(request: web.Request, *, query: PredictionsQuery) -> web.StreamResponse:
    """Read single predictions, newest first.

    JSON has pages of at most `limit` rows, fewer if texts are long. With `Accept: text/csv` or
    `application/x-ndjson` all matching rows from `cursor` on are streamed and `limit` is ignored; an export that
    fails half-way ends without its closing chunk. In CSV an apostrophe precedes everything that a spreadsheet could
    run as a formula, at the start of a field and after a possible separator. JSON and NDJSON have texts unchanged.
    """
    with query_errors():
        asked = query.range(int(time.time() * SECOND))
        predictions, filters = request.app[RESOURCES].predictions, query.filters()
        wanted = preferred(request.headers.getall(hdrs.ACCEPT, ()), (_JSON, CSV, NDJSON))
        limit = query.limit if wanted == _JSON else EXPORT_ROWS
        async with deadline(request):
            page = await predictions.page(asked, filters, limit=limit, cursor=query.cursor, order=query.order)
    said = {hdrs.VARY: hdrs.ACCEPT, hdrs.CACHE_CONTROL: "no-store"}
    if wanted == _JSON:
        return web.Response(body=page.model_dump_json().encode(), content_type=_JSON, headers=said)
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: f"{wanted}; charset=utf-8"} | said)
    await response.prepare(request)
    if request.method == hdrs.METH_HEAD:  # a body would be read as the next response on the connection
        return response
    lines = _csv if wanted == CSV else _ndjson
    if wanted == CSV:
        await _send(response, ",".join(_COLUMNS).encode() + b"\r\n")
    while True:
        await _send(response, await asyncio.to_thread(lines, page.predictions))
        if page.cursor is None:
            return response
        page = await predictions.page(asked, filters, limit=limit, cursor=page.cursor)


async def _send(response: web.StreamResponse, data: bytes) -> None:
    for start in range(0, len(data), SLICE_BYTES):
        async with asyncio.timeout(STALL_S):
            await response.write(data[start : start + SLICE_BYTES])


def _csv(rows: Sequence[StoredPrediction]) -> bytes:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([_cell(getattr(row, name)) for name in _COLUMNS] for row in rows)
    return text.getvalue().encode()


def _ndjson(rows: Sequence[StoredPrediction]) -> bytes:
    return b"".join(row.model_dump_json().encode() + b"\n" for row in rows)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _FORMULA.sub("'", value)
    isoformat: Callable[[], str] | None = getattr(value, "isoformat", None)
    return isoformat() if isoformat else value

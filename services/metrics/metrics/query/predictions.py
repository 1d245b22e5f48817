"""Reads single predictions, newest first, in pages. No transaction stays open between pages.

Rows have no index by time. Rollups have the number of rows of each minute by model, route, outcome and label, so a
page reads only the minutes that it needs, however rare the matching rows are.
"""

import re
from typing import Final, Literal, NamedTuple
from uuid import UUID

from common.contracts.aggregates import Filters, PredictionPage, StoredPrediction
from metrics.errors import InvalidField
from metrics.ranges import Range, as_time, as_us
from metrics.storage.database import Database

Order = Literal["time", "score"]

_SELECTED: Final = ", ".join("event_id AS id" if name == "id" else name for name in StoredPrediction.model_fields)
_MATCHES: Final = """
    ($5::text IS NULL OR model = $5) AND ($6::text IS NULL OR route = $6) AND ($7::text IS NULL OR outcome = $7)
"""
_MATCH: Final = f"{_MATCHES} AND ($8::text IS NULL OR coalesce(label, '') = $8) AND (at, event_id) < ($2, $3)"

PAGE_TEXT_BYTES: Final = 4 << 20  # a page ends with the text that exceeds it; memory use is several times this
_NEWEST: Final = "at DESC, id DESC"
_SIZED: Final = """, sized AS (
    SELECT sum(coalesce(octet_length(text), 0)) OVER (ORDER BY {order}) AS text_bytes, * FROM page
)
SELECT * FROM sized WHERE text_bytes - coalesce(octet_length(text), 0) < {limit} ORDER BY {order}
"""

# `before`: rows in later minutes. Rows in the cursor's minute may all precede the cursor, so they are not counted.
_PAGE: Final = f"""
WITH minute AS (
    SELECT at, sum(n) AS n FROM rollup
    WHERE width_s = 60 AND at >= date_bin('1 minute', $1, 'epoch') AND at <= $2 AND latency_bins > 0
      AND {_MATCHES} AND ($8::text IS NULL OR label = $8)
    GROUP BY at ORDER BY at DESC LIMIT $4 + 1
), enough AS (
    SELECT at, sum(n) FILTER (WHERE at <= $2 - interval '1 minute') OVER (ORDER BY at DESC) - n AS before FROM minute
), page AS (
    SELECT single.* FROM enough CROSS JOIN LATERAL (
        SELECT {_SELECTED} FROM prediction
        WHERE at >= greatest(enough.at, $1) AND at < enough.at + interval '1 minute' AND at <= $2 AND {_MATCH}
        OFFSET 0
    ) AS single
    WHERE before IS NULL OR before < $4
    ORDER BY single.at DESC, id DESC LIMIT $4
){_SIZED.format(order=_NEWEST, limit=PAGE_TEXT_BYTES)}"""


def _scan(order: str) -> str:
    """Return the query for filters on columns that rollups do not have. It reads every row of the range."""
    return f"""
WITH page AS (
    SELECT {_SELECTED} FROM prediction
    WHERE at >= $1 AND at <= $2 AND {_MATCH}
      AND ($9::text IS NULL OR request_id = $9) AND ($10::text IS NULL OR client = $10)
      AND ($11::float8 IS NULL OR score >= $11) AND ($12::float8 IS NULL OR score <= $12)
    ORDER BY {order} LIMIT $4
){_SIZED.format(order=order, limit=PAGE_TEXT_BYTES)}"""


_SCANS: Final[dict[Order, str]] = {"time": _scan(_NEWEST), "score": _scan(f"score NULLS LAST, {_NEWEST}")}
_CURSOR: Final = re.compile(r"([0-9]{1,18})-([0-9a-f]{32})", re.ASCII)
_LAST: Final = UUID(int=(1 << 128) - 1)


class RowFilters(Filters):
    """Filters of single rows. Rollups have no client, request or single score."""

    request_id: UUID | None = None
    client: str | None = None
    min_score: float | None = None
    max_score: float | None = None

    @property
    def is_unindexed(self) -> bool:
        return any(one is not None for one in (self.request_id, self.client, self.min_score, self.max_score))


class Cursor(NamedTuple):
    """The last row of the previous page."""

    at_us: int
    id: UUID

    def text(self) -> str:
        return f"{self.at_us}-{self.id.hex}"


def read_cursor(text: str | None, asked: Range) -> Cursor:
    """Parse a cursor; without one return the end of the range. Raises InvalidField."""
    if text is None:
        return Cursor(asked.end - 1, _LAST)
    match = _CURSOR.fullmatch(text)
    if match is None or not asked.start <= int(match[1]) < asked.end:
        raise InvalidField("cursor", "Not a cursor of an earlier page of the same request.")
    return Cursor(int(match[1]), UUID(match[2]))


class Predictions:
    """Reads pages, each in a separate snapshot."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, asked: Range, filters: RowFilters, *, limit: int, cursor: str | None = None, order: Order = "time"
    ) -> PredictionPage:
        """Return the next `limit` predictions before `cursor`, or fewer if texts are long.

        The order `score` has one page. Raises InvalidField and StoreUnavailable.
        """
        before = read_cursor(cursor, asked)
        named: list[str | float | None] = [filters.model, filters.route, filters.outcome, filters.label]
        query = _PAGE
        if order == "score" or filters.is_unindexed:
            query = _SCANS[order]
            request_id = str(filters.request_id) if filters.request_id else None
            named += [request_id, filters.client, filters.min_score, filters.max_score]
        async with self._database.snapshot() as connection:
            records = await connection.fetch(
                query, as_time(asked.start), as_time(before.at_us), before.id, limit, *named
            )
        found = [StoredPrediction.model_construct(**{**record, "id": str(record["id"])}) for record in records]
        is_full = len(found) == limit or (found and records[-1]["text_bytes"] >= PAGE_TEXT_BYTES)
        last = Cursor(as_us(found[-1].at), UUID(found[-1].id)).text() if is_full and order == "time" else None
        return PredictionPage.model_construct(predictions=found, cursor=last)

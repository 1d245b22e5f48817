"""Stores true labels, each once, and counts how often predictions matched them.

A lookup uses the time in a prediction's id, a UUIDv7, so it reads some minutes of rows instead of a month.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg

from common.contracts.aggregates import Accuracy, Confusion, Filters
from common.contracts.feedback import FeedbackItem, FeedbackResult
from metrics.ranges import Range, as_time
from metrics.storage.database import Connection, Database

_EARLIER_US: Final = 60_000_000  # hosts' clocks differ by less
_LATER_US: Final = 180_000_000  # from a request's arrival to its last answer, including clock differences
_LATEST_MS: Final = 250_000_000_000_000  # the year 9892: an invented id may exceed the range of timestamps
_BY_ID: Final = """
SELECT event_id, at, outcome, model, route, label FROM prediction WHERE event_id = $1 AND at >= $2 AND at < $3
"""
_BY_REQUEST: Final = """
SELECT event_id, at, outcome, model, route, label FROM prediction
WHERE request_id = $1 AND at >= $2 AND at < $3 ORDER BY event_id OFFSET $4 LIMIT 1
"""
_STORE: Final = """
INSERT INTO feedback AS old (prediction_id, at, model, route, predicted, actual) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (prediction_id) DO UPDATE SET actual = EXCLUDED.actual, received_at = now()
WHERE old.actual <> EXCLUDED.actual
RETURNING xmax = 0
"""
_COUNTS: Final = """
SELECT predicted, actual, count(*) FROM feedback
WHERE at >= $1 AND at < $2 AND ($3::text IS NULL OR model = $3) AND ($4::text IS NULL OR route = $4)
  AND ($5::text IS NULL OR predicted = $5)
GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2
"""


class FeedbackStore:
    """Records true labels."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, items: Sequence[FeedbackItem]) -> list[FeedbackResult]:
        """Store each label once; the last one given for a prediction counts. Raises StoreUnavailable."""
        async with self._database.transaction() as connection:
            kept_from = await connection.fetchval("SELECT kept_from FROM retention WHERE relation = 'prediction'")
            found = [await _find(connection, item) for item in items]
            made_at = [as_time(_at_us(_id_of(item))) for item in items]
            results = [
                FeedbackResult(status="expired" if kept_from and at < kept_from else "not_found") for at in made_at
            ]
            known = [(row["event_id"], place, row) for place, row in enumerate(found) if row is not None]
            for _, place, row in sorted(known, key=lambda one: one[:2]):  # one order, so writers cannot deadlock
                results[place] = await _store(connection, row, items[place].label)
        return results


async def accuracy(connection: Connection, range: Range, filters: Filters, predictions: int) -> Accuracy:
    """Compare predictions of `range` with their true labels. `predictions` is the number that match the filters."""
    named = (filters.model or "", filters.route or "", filters.label or "")
    if filters.outcome not in (None, "ok") or any("\x00" in name for name in named):  # PostgreSQL rejects NUL
        return Accuracy.of([], predictions)
    records = await connection.fetch(
        _COUNTS, as_time(range.start), as_time(range.end), filters.model, filters.route, filters.label
    )
    confusion = [Confusion(predicted=predicted, actual=actual, count=n) for predicted, actual, n in records]
    return Accuracy.of(confusion, predictions)


def around(id: UUID) -> Range:
    """Return when the predictions of a request, or one with this id, may have been answered."""
    at_us = _at_us(id)
    return Range(at_us - _EARLIER_US, at_us + _LATER_US)


def _at_us(id: UUID) -> int:
    return min(id.int >> 80, _LATEST_MS) * 1_000  # the first 48 bits are milliseconds


async def _find(connection: Connection, item: FeedbackItem) -> asyncpg.Record | None:
    range = around(_id_of(item))
    bounds = as_time(range.start), as_time(range.end)
    if item.prediction_id is not None:
        return await connection.fetchrow(_BY_ID, item.prediction_id, *bounds)
    return await connection.fetchrow(_BY_REQUEST, str(item.request_id), *bounds, item.index)


def _id_of(item: FeedbackItem) -> UUID:
    id = item.prediction_id or item.request_id
    assert id is not None  # the contract requires one of them
    return id


async def _store(connection: Connection, row: asyncpg.Record, label: str) -> FeedbackResult:
    id = str(row["event_id"])
    if row["outcome"] != "ok" or row["label"] is None:
        return FeedbackResult(status="not_answered", prediction_id=id)
    is_new = await connection.fetchval(
        _STORE, row["event_id"], row["at"], row["model"], row["route"], row["label"], label
    )
    if is_new is None:
        return FeedbackResult(status="unchanged", prediction_id=id)
    return FeedbackResult(status="recorded" if is_new else "replaced", prediction_id=id)

"""Writes events and their rollups in one transaction, each event once. Nothing else writes these tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from common.contracts.events import CounterEvent, PredictionEvent
from metrics.errors import RowRefused
from metrics.ranges import as_time
from metrics.storage.database import Connection, Database
from metrics.storage.rollup_sql import WRITE


@dataclass(frozen=True, slots=True)
class WriteResult:
    """The numbers of new events and of those already stored."""

    predictions: int
    counters: int


class EventWriter:
    """Writes batches. Any number may run at once: rows are locked in key order, so they cannot deadlock."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, events: Iterable[PredictionEvent | CounterEvent]) -> WriteResult:
        """Store those `events` that are new, or none of them. Raises RowRefused and StoreUnavailable."""
        predictions: list[tuple[Any, ...]] = []
        counters: list[tuple[Any, ...]] = []
        for event in events:
            if isinstance(event, CounterEvent):
                counters.append(_counter_row(event))
            else:
                predictions.append(prediction_row(event))
        async with self._database.transaction() as connection:
            for table, columns, rows in (
                ("prediction", PREDICTION_COLUMNS, predictions),
                ("counter_event", COUNTER_COLUMNS, counters),
            ):
                # Created once per session, because one per batch would bloat the catalogue. COMMIT empties it.
                await connection.execute(
                    f"CREATE TEMP TABLE IF NOT EXISTS arrived_{table} (LIKE {table}) ON COMMIT DELETE ROWS"
                )
                if rows:
                    await _copy(connection, f"arrived_{table}", columns, rows)
            row = await connection.fetchrow(WRITE)
        assert row is not None  # the query always returns one row
        return WriteResult(*row)


PREDICTION_COLUMNS: Final = (
    "event_id", "at", "route", "outcome", "request_id", "trace_id", "model", "revision", "label", "score", "margin",
    "cached", "truncated", "latency_us", "queue_us", "compute_us", "tokens", "characters", "client", "text",
)  # fmt: skip  # one word a line would be a screenful
COUNTER_COLUMNS: Final = ("event_id", "at", "route", "outcome", "policy", "n")


async def _copy(connection: Connection, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
    try:
        await connection.copy_records_to_table(table, records=rows, columns=columns)
    except (OverflowError, ValueError, TypeError) as error:  # asyncpg itself cannot encode a value
        raise RowRefused(type(error).__name__) from error


def prediction_row(e: PredictionEvent) -> tuple[Any, ...]:
    text = e.text.replace("\x00", "\ufffd") if e.text else e.text  # PostgreSQL rejects NUL; the event still counts
    return (
        e.id, as_time(e.at_us), e.route, e.outcome, e.request_id, e.trace_id, e.model, e.revision, e.label, e.score,
        e.margin, e.cached, e.truncated, e.latency_us, e.queue_us, e.compute_us, e.tokens, e.characters, e.client, text,
    )  # fmt: skip


def _counter_row(e: CounterEvent) -> tuple[Any, ...]:
    return (e.id, as_time(e.at_us), e.route, e.outcome, e.policy, e.n)

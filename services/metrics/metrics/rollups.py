"""Reads what happened, from rollups and, at ragged edges, from single events; it never writes."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

from metrics.database import Connection, Database
from metrics.rollup_sql import CELLS, FACTS_OF_COUNTERS, FACTS_OF_PREDICTIONS
from metrics.tally import Row, Source
from metrics.windows import RAW, Piece, Range, as_time, as_us

_ROW: Final = "model, route, outcome, label, latency_max_us, n, latency_sum_us, scored, score_sum_ppm, bins, counts"

_COUNT: Final = "SELECT coalesce(sum(n), 0)::bigint FROM rollup WHERE width_s = 86400 AND outcome = 'ok'"

# OFFSET 0 keeps the planner from joining by width alone: each piece is one short walk along the primary key.
_ROLLED: Final = f"""
SELECT slot, {_ROW}
FROM unnest($1::integer[], $2::integer[], $3::timestamptz[], $4::timestamptz[]) AS piece (slot, width_s, first, after)
CROSS JOIN LATERAL (
    SELECT * FROM rollup WHERE rollup.width_s = piece.width_s AND at >= first AND at < after OFFSET 0
) AS part
"""

_SINGLE: Final = f"""
WITH event AS (
    SELECT {FACTS_OF_PREDICTIONS} FROM prediction WHERE at >= $2 AND at < $3
    UNION ALL SELECT {FACTS_OF_COUNTERS} FROM counter_event WHERE at >= $2 AND at < $3
), fact AS (
    SELECT 0 AS width_s, $2 AS at, model, route, outcome, label, n, latency_us, score, characters, bins FROM event
), {CELLS}
SELECT $1::integer AS slot, {_ROW} FROM rolled
"""

_LATENCIES: Final = """
SELECT at, latency_us, model, route, outcome, coalesce(label, '') FROM prediction
WHERE at >= $1 AND at < $2 AND outcome = 'ok'
"""


class Answered(NamedTuple):
    """One answered prediction."""

    at_us: int
    latency_us: int
    source: Source


class Snapshot:
    """Reads of one moment."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def raw_from(self) -> int:
        """Since when single events are kept, in µs: what is older is known by the minute only."""
        kept_from = await self.connection.fetchval("SELECT max(kept_from) FROM retention")
        return as_us(kept_from) if kept_from else 0

    async def rows(self, pieces: Sequence[Piece]) -> list[Row]:
        """What happened in each piece."""
        rolled = [piece for piece in pieces if piece.width_s != RAW]
        records = await self.connection.fetch(
            _ROLLED,
            [piece.slot for piece in rolled],
            [piece.width_s for piece in rolled],
            [as_time(piece.start) for piece in rolled],
            [as_time(piece.end) for piece in rolled],
        )
        for piece in pieces:
            if piece.width_s == RAW:
                records += await self.connection.fetch(_SINGLE, piece.slot, as_time(piece.start), as_time(piece.end))
        return [Row(record[0], Source(*record[1:5]), *record[5:]) for record in records]

    async def answered(self, range: Range) -> Iterable[Answered]:
        """Every answered prediction in `range`: ask only when they are few."""
        records = await self.connection.fetch(_LATENCIES, as_time(range.start), as_time(range.end))
        return (Answered(as_us(record[0]), record[1], Source(*record[2:])) for record in records)


class Rollups:
    """The door to snapshots."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self) -> int:
        """Answered predictions since the beginning, exactly."""
        async with self._database.connection() as connection:
            return int(await connection.fetchval(_COUNT))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        async with self._database.snapshot() as connection:
            yield Snapshot(connection)

"""Reads what happened, from rollups and, at ragged edges, from single events; it never writes."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, NamedTuple

from metrics.database import Connection, Database
from metrics.rollup_sql import CELLS, FACTS_OF_COUNTERS, FACTS_OF_PREDICTIONS
from metrics.tally import Row, Source
from metrics.windows import RAW, Piece, Range, as_time, as_us

_ROW: Final = "model, route, outcome, label, latency_max_us, n, latency_sum_us, scored, score_sum_ppm, bins, counts"

_COUNT: Final = "SELECT coalesce(sum(n), 0)::bigint FROM rollup WHERE width_s = 86400 AND outcome = 'ok'"

# OFFSET 0 keeps the planner from joining by width or time alone: each piece is one short walk along an index.
_ROWS: Final = f"""
WITH event AS (
    SELECT slot, single.*
    FROM unnest($5::integer[], $6::timestamptz[], $7::timestamptz[]) AS piece (slot, first, after)
    CROSS JOIN LATERAL (
        SELECT {FACTS_OF_PREDICTIONS} FROM prediction WHERE at >= first AND at < after
        UNION ALL SELECT {FACTS_OF_COUNTERS} FROM counter_event WHERE at >= first AND at < after
        OFFSET 0
    ) AS single
), fact AS (
    SELECT slot AS width_s, 'epoch'::timestamptz AS at, model, route, outcome, label, n, latency_us, score, characters,
           bins
    FROM event
), {CELLS}
SELECT slot, {_ROW}
FROM unnest($1::integer[], $2::integer[], $3::timestamptz[], $4::timestamptz[]) AS piece (slot, width_s, first, after)
CROSS JOIN LATERAL (
    SELECT * FROM rollup WHERE rollup.width_s = piece.width_s AND at >= first AND at < after OFFSET 0
) AS part
UNION ALL SELECT width_s, {_ROW} FROM rolled
"""

_LATENCIES: Final = """
SELECT slot, at, latency_us, model, route, outcome, coalesce(label, '')
FROM unnest($1::integer[], $2::timestamptz[], $3::timestamptz[]) AS piece (slot, first, after)
CROSS JOIN LATERAL (
    SELECT * FROM prediction WHERE at >= first AND at < after AND outcome = 'ok' OFFSET 0
) AS single
"""


class Answered(NamedTuple):
    """One answered prediction of the asked range number `place`."""

    place: int
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
        single = [piece for piece in pieces if piece.width_s == RAW]
        records = await self.connection.fetch(
            _ROWS,
            [piece.slot for piece in rolled],
            [piece.width_s for piece in rolled],
            *_bounds(rolled),
            [piece.slot for piece in single],
            *_bounds(single),
        )
        return [Row(record[0], Source(*record[1:5]), *record[5:]) for record in records]

    async def answered(self, ranges: Mapping[int, Range]) -> Iterable[Answered]:
        """Every answered prediction in each of the ranges: ask only when they are few."""
        if not ranges:
            return ()
        records = await self.connection.fetch(_LATENCIES, list(ranges), *_bounds(list(ranges.values())))
        return (Answered(record[0], as_us(record[1]), record[2], Source(*record[3:])) for record in records)


def _bounds(ranges: Sequence[Piece | Range]) -> tuple[list[datetime], list[datetime]]:
    return [as_time(range.start) for range in ranges], [as_time(range.end) for range in ranges]


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

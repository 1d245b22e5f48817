"""Reads what happened, from rollups and, at ragged edges, from single events; it never writes."""

from collections.abc import AsyncIterator, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, NamedTuple

import asyncpg

from metrics.query.accumulator import GroupKey, Row
from metrics.ranges import FINE_S, RAW, Range, RollupSpan, as_time, as_us, minutes, refine
from metrics.storage.database import Connection, Database
from metrics.storage.histogram import read
from metrics.storage.rollup_sql import FACTS_OF_COUNTERS, FACTS_OF_PREDICTIONS, cells

_HISTOGRAMS: Final = ("latency_bins", "score_bins", "character_bins")  # in the order of `metrics.storage.histogram`

# As `Row` has them: histograms only of what was answered.
_FIGURES: Final = ", ".join(
    (
        "max(latency_max_us), sum(n)::bigint, coalesce(sum(n) FILTER (WHERE latency_bins > 0), 0)::bigint",
        *(f"sum({name})::bigint" for name in ("latency_sum_us", "scored", "score_sum_ppm")),
        *(f"numeric_send(sum({name}) FILTER (WHERE outcome = 'ok'))" for name in _HISTOGRAMS),
    )
)

_COUNT: Final = "SELECT coalesce(sum(n), 0)::bigint FROM rollup WHERE width_s = 86400 AND outcome = 'ok'"

# OFFSET 0 keeps the planner from joining by width or time alone: each piece is one short walk along an index.
_ROWS: Final = f"""
WITH event AS (
    SELECT place, single.*
    FROM unnest($5::timestamptz[], $6::timestamptz[]) WITH ORDINALITY AS piece (first, after, place)
    CROSS JOIN LATERAL (
        SELECT {FACTS_OF_PREDICTIONS} FROM prediction WHERE at >= first AND at < after
        UNION ALL SELECT {FACTS_OF_COUNTERS} FROM counter_event WHERE at >= first AND at < after
        OFFSET 0
    ) AS single
), fact AS (
    SELECT place AS width_s, 'epoch'::timestamptz AS at, model, route, outcome, label, n, latency_us, score, characters,
           bins
    FROM event
), {cells(_HISTOGRAMS)}
SELECT slot, CASE WHEN $9 THEN model ELSE '' END, CASE WHEN $10 THEN route ELSE '' END, outcome, label, {_FIGURES}
FROM unnest($1::integer[], $2::integer[], $3::timestamptz[], $4::timestamptz[]) AS piece (slot, width, first, after)
CROSS JOIN LATERAL (
    SELECT * FROM rollup WHERE rollup.width_s = width AND at >= first AND at < after OFFSET 0
) AS stored
GROUP BY 1, 2, 3, 4, 5
UNION ALL
SELECT slot, model, route, outcome, label, {_FIGURES}
FROM unnest($7::integer[], $8::bigint[]) AS shared (slot, place) JOIN cell ON width_s = place
GROUP BY 1, 2, 3, 4, 5
"""

# They may be gone, or written by a release without them: those of a minute count only if they lack none of its events.
_FINE_MINUTES: Final = f"""
SELECT minute
FROM unnest($1::timestamptz[]) AS minute
CROSS JOIN LATERAL (
    SELECT sum(n) FILTER (WHERE width_s = 60) AS n, sum(n) FILTER (WHERE width_s = {FINE_S}) AS fine
    FROM rollup WHERE width_s IN (60, {FINE_S}) AND at >= minute AND at < minute + interval '1 minute'
) AS stored
WHERE n = fine
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
    source: GroupKey


class Snapshot:
    """Reads of one moment."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def raw_from(self) -> int:
        """Since when single events are kept, in µs: what is older is known by the minute only."""
        kept_from = await self.connection.fetchval("SELECT max(kept_from) FROM retention")
        return as_us(kept_from) if kept_from else 0

    async def rows(self, pieces: Sequence[RollupSpan], details: Container[str] = ()) -> Iterator[Row]:
        """What happened in each slot; sources are told apart by model and route only if `details` names these.

        Only answered predictions have histograms. Rows are read as they are taken: thousands take long.
        """
        fine = await self._fine_minutes(pieces)
        pieces = [part for piece in pieces for part in refine(piece, fine)]
        rolled = [piece for piece in pieces if piece.width_s != RAW]
        single = [piece for piece in pieces if piece.width_s == RAW]
        edges = list(dict.fromkeys(map(_range, single)))  # many ranges end now
        records = await self.connection.fetch(
            _ROWS,
            [piece.slot for piece in rolled],
            [piece.width_s for piece in rolled],
            *_bounds(rolled),
            *_bounds(edges),
            [piece.slot for piece in single],
            [edges.index(_range(piece)) + 1 for piece in single],
            "model" in details,
            "route" in details,
        )
        return map(_row, records)

    async def _fine_minutes(self, pieces: Sequence[RollupSpan]) -> set[int]:
        """Of the minutes that would be read from single events."""
        asked = [as_time(minute) for minute in sorted(minutes(piece for piece in pieces if piece.width_s == RAW))]
        return {as_us(minute) for (minute,) in await self.connection.fetch(_FINE_MINUTES, asked)} if asked else set()

    async def answered(self, ranges: Mapping[int, Range]) -> Iterable[Answered]:
        """Every answered prediction in each of the ranges: ask only when they are few."""
        if not ranges:
            return ()
        records = await self.connection.fetch(_LATENCIES, list(ranges), *_bounds(list(ranges.values())))
        return (Answered(record[0], as_us(record[1]), record[2], GroupKey(*record[3:])) for record in records)


def _row(record: asyncpg.Record) -> Row:
    slot, model, route, outcome, label, latency_max_us, n, singles, latency_sum_us, scored, score_sum_ppm, *sent = (
        record
    )
    histograms = [read(histogram) if histogram else 0 for histogram in sent]
    source = GroupKey(model, route, outcome, label)
    return Row(slot, source, latency_max_us, n, singles, latency_sum_us, scored, score_sum_ppm, histograms)


def _range(piece: RollupSpan) -> Range:
    return Range(piece.start, piece.end)


def _bounds(ranges: Sequence[RollupSpan | Range]) -> tuple[list[datetime], list[datetime]]:
    return [as_time(range.start) for range in ranges], [as_time(range.end) for range in ranges]


class Rollups:
    """The door to snapshots."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self) -> int:
        """Answered predictions since the beginning, exactly."""
        async with self._database.transaction() as connection:
            return int(await connection.fetchval(_COUNT))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        async with self._database.snapshot() as connection:
            yield Snapshot(connection)

"""Reads rollups: counts, sums and histograms of time spans."""

from collections.abc import AsyncIterator, Container, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from metrics.query.accumulator import GroupKey, Row
from metrics.ranges import RollupSpan, as_time
from metrics.storage.database import Connection, Database
from metrics.storage.histogram import read
from metrics.storage.rollup_sql import HISTOGRAMS

_SUMS: Final = (
    "n", "latency_sum_us", "scored", "score_sum_ppm", "queue_sum_us", "compute_sum_us", "tokens_sum",
)  # fmt: skip  # in the order of `Row`
_COUNT: Final = "SELECT coalesce(sum(n), 0)::bigint FROM rollup WHERE width_s = 86400 AND outcome = 'ok'"

# OFFSET 0 keeps the planner from joining by width or time alone: each span is one short walk along an index.
_ROWS: Final = f"""
SELECT slot, CASE WHEN $5 THEN model ELSE '' END, CASE WHEN $6 THEN route ELSE '' END, outcome, label, origin,
       max(latency_max_us), {", ".join(f"sum({name})::bigint" for name in _SUMS)},
       {", ".join(f"numeric_send(sum({name}) FILTER (WHERE outcome = 'ok'))" for name in HISTOGRAMS)}
FROM unnest($1::integer[], $2::integer[], $3::timestamptz[], $4::timestamptz[]) AS span (slot, width, first, after)
CROSS JOIN LATERAL (
    SELECT * FROM rollup WHERE rollup.width_s = width AND at >= first AND at < after OFFSET 0
) AS stored
GROUP BY 1, 2, 3, 4, 5, 6
"""


class Snapshot:
    """Reads from one connection. In a snapshot they all see the same moment."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    async def rows(self, spans: Sequence[RollupSpan], details: Container[str] = ()) -> Iterator[Row]:
        """Return the rows of each slot, split by model and route only if `details` names them.

        Only answered predictions have histograms. Rows are decoded while iterating, because thousands take long.
        """
        records = await self.connection.fetch(
            _ROWS,
            [span.slot for span in spans],
            [span.width_s for span in spans],
            [as_time(span.start) for span in spans],
            [as_time(span.end) for span in spans],
            "model" in details,
            "route" in details,
        )
        return map(_row, records)


def _row(record: asyncpg.Record) -> Row:
    slot, model, route, outcome, label, origin, *figures = record
    numbers, sent = figures[: -len(HISTOGRAMS)], figures[-len(HISTOGRAMS) :]
    histograms = [read(histogram) if histogram else 0 for histogram in sent]
    return Row._make((slot, GroupKey(model, route, outcome, label), origin, *numbers, histograms))


class Rollups:
    """Opens snapshots of the rollups."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self) -> int:
        """Return the exact number of predictions that were ever answered."""
        async with self._database.transaction() as connection:
            return int(await connection.fetchval(_COUNT))

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        async with self._database.snapshot() as connection:
            yield Snapshot(connection)

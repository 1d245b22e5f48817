"""Compare stored rollups with their events. Only tests and benchmarks use this."""

from datetime import date
from typing import Final

from metrics.ranges import NARROWEST_S, WIDTHS_S, day_bounds
from metrics.storage.database import Connection, Database
from metrics.storage.rollup_sql import COLUMNS, FACTS_OF_COUNTERS, FACTS_OF_PREDICTIONS, rolled_up

_RECOMPUTED: Final = f"""
    event AS (
        SELECT {FACTS_OF_PREDICTIONS} FROM prediction WHERE at >= $1 AND at < $2
        UNION ALL SELECT {FACTS_OF_COUNTERS} FROM counter_event WHERE at >= $1 AND at < $2
    ), {rolled_up([width_s for width_s in WIDTHS_S if width_s != NARROWEST_S])}
"""
_STORED: Final = f"SELECT {COLUMNS} FROM rollup WHERE width_s IN (60, 3600, 86400) AND at >= $1 AND at < $2"
_DIFFERING: Final = f"""
WITH {_RECOMPUTED}, expected AS MATERIALIZED (SELECT {COLUMNS} FROM rolled), stored AS MATERIALIZED ({_STORED})
SELECT (SELECT count(*) FROM (TABLE expected EXCEPT TABLE stored) AS missing)
     + (SELECT count(*) FROM (TABLE stored EXCEPT TABLE expected) AS surplus)
"""
_DAYS: Final = """
SELECT (at AT TIME ZONE 'UTC')::date FROM rollup WHERE width_s = 86400
UNION SELECT (at AT TIME ZONE 'UTC')::date FROM prediction
UNION SELECT (at AT TIME ZONE 'UTC')::date FROM counter_event ORDER BY 1
"""


async def differing_rows(database: Database) -> int:
    """Return the number of rollup rows that differ from their events, histograms included, in one snapshot."""
    async with database.snapshot() as connection:
        days: list[date] = [day for (day,) in await connection.fetch(_DAYS)]
        return sum([await connection.fetchval(_DIFFERING, *day_bounds(day)) for day in days])


async def recompute(connection: Connection, day: date) -> None:
    """Replace the rollups of `day` with sums over its events, without the narrowest ones."""
    await connection.execute("DELETE FROM rollup WHERE at >= $1 AND at < $2", *day_bounds(day))
    await connection.execute(
        f"WITH {_RECOMPUTED} INSERT INTO rollup ({COLUMNS}) SELECT {COLUMNS} FROM rolled", *day_bounds(day)
    )

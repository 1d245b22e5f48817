"""Generates a month of predictions in PostgreSQL and times queries over it, with rollups and with raw rows."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from common.contracts.aggregates import AggregateRequest
from common.stores.postgres import create_pool
from metrics.query.aggregate import Aggregates
from metrics.query.rollups import Rollups
from metrics.ranges import NARROWEST_S
from metrics.storage.database import Database
from metrics.storage.partitions import Partitions
from metrics.storage.rollup_sql import COLUMNS, FACTS_OF_PREDICTIONS, rolled_up

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from rollup_check import recompute  # from the tests

DAYS: Final = 30
_DAY: Final = timedelta(days=1)
_ROWS: Final = """
INSERT INTO prediction
SELECT $1::timestamptz + make_interval(secs => $3::float8 * i / $2), gen_random_uuid(),
       greatest(1, exp(9 + 0.8 * random_normal()))::integer, 500, 8000, 20,
       greatest(1, exp(4 + 0.7 * random_normal()))::integer, 0.5 + random() / 2, random(), false, false,
       CASE WHEN random() < 0.5 THEN '/predict' ELSE '/predict/batch' END,
       CASE WHEN random() < 0.99 THEN 'ok' ELSE 'timeout' END, 'sentiment', '1',
       CASE WHEN random() < 0.6 THEN 'POSITIVE' ELSE 'NEGATIVE' END, i::text, NULL, NULL, NULL
FROM generate_series(0, $2::bigint - 1) AS i
"""
_RAW: Final = """
SELECT count(*), percentile_cont(ARRAY[0.5, 0.9, 0.95, 0.99]) WITHIN GROUP (ORDER BY latency_us)
FROM prediction WHERE at >= $1 AND at < $2 AND outcome = 'ok'
"""
_FINE: Final = f"""
WITH event AS (SELECT {FACTS_OF_PREDICTIONS} FROM prediction WHERE at >= $1 AND at < $2), {rolled_up([NARROWEST_S])}
INSERT INTO rollup ({COLUMNS}) SELECT {COLUMNS} FROM rolled
"""
_TIMEOUT_S: Final = 600.0


class History:
    """A database filled up to a midnight. The readers' clock is some hours earlier, not at a whole minute."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self.now = self.end - timedelta(hours=5, minutes=17, seconds=23, microseconds=456_789)

    def pool(self, size: int = 1) -> Any:
        return create_pool(self._url, schema="metrics", application="bench", size=size, timeout_s=_TIMEOUT_S)

    async def fill(self, rows: int) -> None:
        """Insert `rows` predictions and their rollups."""
        first = self.end - DAYS * _DAY
        async with self.pool(size=2) as pool:
            database = Database(pool, _TIMEOUT_S)
            await Partitions(database, retention_days=DAYS, ahead_days=DAYS, now=first.timestamp).maintain()
            made: asyncio.Task[None] | None = None
            for day in (first + n * _DAY for n in range(DAYS)):
                await pool.execute(_ROWS, day, rows // DAYS, _DAY.total_seconds())
                if made is not None:
                    await made
                made = asyncio.create_task(self._roll_up(database, day))
            if made is not None:
                await made
            await pool.execute("VACUUM (ANALYZE) prediction")
            await pool.execute("VACUUM (ANALYZE) rollup")

    async def fill_busy(self, per_s: int, minutes: int) -> None:
        """Insert `per_s` predictions for each second of the last `minutes`, with all widths of rollups."""
        first = self.now - timedelta(minutes=minutes)
        async with self.pool() as pool:
            database = Database(pool, _TIMEOUT_S)
            await Partitions(database, retention_days=DAYS, ahead_days=1, now=first.timestamp).maintain()
            await pool.execute(_ROWS, first, per_s * minutes * 60, minutes * 60.0)
            for day in {first.date(), self.now.date()}:
                await self._roll_up(database, datetime(day.year, day.month, day.day, tzinfo=UTC))
            await pool.execute(_FINE, first, self.now)
            await pool.execute("VACUUM (ANALYZE) prediction")

    async def _roll_up(self, database: Database, day: datetime) -> None:
        async with database.transaction() as connection:
            await recompute(connection, day.date())

    @asynccontextmanager
    async def aggregates(self) -> AsyncIterator[Aggregates]:
        """Return Aggregates as the service builds them."""

        async def lag_s() -> float:
            return 0.0

        async with self.pool() as pool:
            parts = Rollups(Database(pool, _TIMEOUT_S))
            yield Aggregates(parts, lag_s, now=self.now.timestamp)

    def finest(self) -> AggregateRequest:
        """Return the most expensive allowed request: all groups and the maximum of buckets."""
        return AggregateRequest(
            start=self.now - timedelta(days=20),
            end=self.now,
            bucket="1h",
            group_by=["model", "label", "outcome", "route"],
        )

    async def count(self, rounds: int) -> list[float]:
        """Return the milliseconds of the exact count."""
        async with self.pool() as pool:
            rollups = Rollups(Database(pool, _TIMEOUT_S))
            await rollups.count()
            return [await timed_ms(rollups.count) for _ in range(rounds)]

    async def raw(self, rounds: int) -> tuple[list[float], list[float]]:
        """Return the percentiles of all rows in ms, by percentile_cont, and the milliseconds of each round."""
        async with self.pool() as pool, pool.acquire() as connection:
            bounds = (self.now - DAYS * _DAY, self.now)
            row = await connection.fetchrow(_RAW, *bounds)
            taken = [await timed_ms(lambda: connection.fetchrow(_RAW, *bounds)) for _ in range(rounds)]
            return [value / 1000 for value in row[1]], taken

    async def copy_out(self, path: str) -> None:
        """Export the columns that an aggregating view needs as CSV."""
        async with self.pool() as pool, pool.acquire() as connection:
            await connection.copy_from_query(
                "SELECT extract(epoch FROM at)::bigint, model, route, outcome, label, latency_us FROM prediction",
                output=path,
                format="csv",
                timeout=_TIMEOUT_S,
            )


async def timed_ms(work: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await work()
    return 1000 * (time.perf_counter() - started)

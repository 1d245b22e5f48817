"""A month of made-up predictions in PostgreSQL, and how long the answers over it take, beside the raw rows."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from common.contracts import Aggregate, AggregateRequest
from common.postgres import create_pool
from metrics.aggregates import Aggregates
from metrics.database import Database
from metrics.partitions import Partitions
from metrics.rebuild import recompute
from metrics.rollups import Rollups

DAYS: Final = 30
_DAY: Final = timedelta(days=1)
_ROWS: Final = """
INSERT INTO prediction
SELECT $1::timestamptz + make_interval(secs => 86400.0 * i / $2), gen_random_uuid(),
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
_TIMEOUT_S: Final = 600.0


class History:
    """One database, filled up to a midnight; the clock of its readers stands hours before, at no whole minute."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.end = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self.now = self.end - timedelta(hours=5, minutes=17, seconds=23, microseconds=456_789)

    def pool(self, size: int = 1) -> Any:
        return create_pool(self._url, schema="metrics", application="bench", size=size, timeout_s=_TIMEOUT_S)

    async def fill(self, rows: int) -> float:
        """Make `rows` predictions and their rollups; returns the seconds that it took."""
        started = time.perf_counter()
        first = self.end - DAYS * _DAY
        async with self.pool(size=2) as pool:
            database = Database(pool, _TIMEOUT_S)
            await Partitions(database, retention_days=DAYS, ahead_days=DAYS, now=first.timestamp).maintain()
            made: asyncio.Task[None] | None = None
            for day in (first + n * _DAY for n in range(DAYS)):
                async with pool.acquire() as connection:
                    await connection.execute(_ROWS, day, rows // DAYS, timeout=_TIMEOUT_S)
                if made is not None:
                    await made
                made = asyncio.create_task(self._roll_up(database, day))
            if made is not None:
                await made
            async with pool.acquire() as connection:
                await connection.execute("VACUUM (ANALYZE) prediction", timeout=_TIMEOUT_S)
                await connection.execute("VACUUM (ANALYZE) rollup", timeout=_TIMEOUT_S)
        return time.perf_counter() - started

    async def _roll_up(self, database: Database, day: datetime) -> None:
        async with database.transaction() as connection:
            await recompute(connection, day.date())

    async def aggregated(self, rounds: int) -> tuple[Aggregate, float]:
        """The answer over all 30 days, and the median of its seconds."""

        async def lag_s() -> float:
            return 0.0

        async with self.pool() as pool:
            parts = Rollups(Database(pool, _TIMEOUT_S))
            aggregates = Aggregates(parts, lag_s, exact_max=10_000, now=self.now.timestamp)
            request = AggregateRequest(window="30d")
            seconds = await timed(lambda: aggregates.answer(request), rounds)
            return await aggregates.answer(request), seconds

    async def count(self, rounds: int) -> float:
        """The median of the seconds that the exact count takes."""
        async with self.pool() as pool:
            rollups = Rollups(Database(pool, _TIMEOUT_S))
            return await timed(rollups.count, rounds)

    async def raw(self, rounds: int) -> tuple[list[float], float]:
        """Percentiles by percentile_cont over all rows, in ms, and the median of the seconds."""
        async with self.pool() as pool, pool.acquire() as connection:
            bounds = (self.now - DAYS * _DAY, self.now)
            seconds = await timed(lambda: connection.fetchrow(_RAW, *bounds), rounds)
            row = await connection.fetchrow(_RAW, *bounds)
            return [value / 1000 for value in row[1]], seconds

    async def sizes_mb(self) -> tuple[int, int]:
        """Raw rows with their keys, and rollups."""
        async with self.pool() as pool, pool.acquire() as connection:
            raw = await connection.fetchval(
                "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits WHERE inhparent = 'prediction'::regclass"
            )
            return int(raw) >> 20, int(await connection.fetchval("SELECT pg_total_relation_size('rollup')")) >> 20

    async def copy_out(self, path: str) -> None:
        """What an aggregating view needs, as CSV."""
        async with self.pool() as pool, pool.acquire() as connection:
            await connection.copy_from_query(
                "SELECT extract(epoch FROM at)::bigint, model, route, outcome, label, latency_us FROM prediction",
                output=path,
                format="csv",
                timeout=_TIMEOUT_S,
            )


async def timed(work: Callable[[], Awaitable[Any]], rounds: int) -> float:
    """The median of the seconds of `rounds`, after one that warms up."""
    await work()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        await work()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)

"""Background work on the limiter's tables: heartbeats that count the replicas, and garbage collection.

No decision waits for it. While PostgreSQL is down, the last known number of replicas remains in use.
"""

import asyncio
import random
import time
from typing import Final

import asyncpg
import structlog

from common.stores.postgres import POSTGRES_ERRORS, expire_if_read_only

log = structlog.get_logger()

HEARTBEAT_S: Final = 5.0
ALIVE_S: Final = 15.0
COLLECT_S: Final = 60.0
GRACE_S: Final = 60.0
"""Rows are kept this long after their window, for writers that read the clock just before.

A row further ahead of the clock than its window and this grace is deleted too. Otherwise, after the clock is set back,
a full row would stay full until the clock catches up.
"""
PAGE: Final = 1_000

_BEAT: Final = """
WITH gone AS (DELETE FROM edge.replicas WHERE id <> $1
              AND seen_at NOT BETWEEN clock_timestamp() - $2 * interval '1 second'
                                  AND clock_timestamp() + $2 * interval '1 second'),
     beat AS (INSERT INTO edge.replicas (id, seen_at) VALUES ($1, clock_timestamp())
              ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at)
SELECT count(*) + 1 FROM edge.replicas WHERE id <> $1
AND seen_at BETWEEN clock_timestamp() - $2 * interval '1 second' AND clock_timestamp() + $2 * interval '1 second'
"""
_COLLECT: Final = """
WITH t AS MATERIALIZED (SELECT edge.now_us() AS now_us),
     dead AS MATERIALIZED (
       SELECT a.key FROM edge.admissions a, t WHERE a.key > $1 AND abs(t.now_us - a.at_us) > a.window_us + $2::bigint
       ORDER BY a.key LIMIT $3 FOR UPDATE OF a SKIP LOCKED)
DELETE FROM edge.admissions a USING dead WHERE a.key = dead.key RETURNING a.key
"""


class Housekeeping:
    """One per process. `replicas` is the last known number of edge processes on this database, at least 1.

    It starts at `expected`, because edges that start during an outage must not grant a whole limit each.
    """

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", replica_id: str, expected: int = 1) -> None:
        self._pool = pool
        self._id = replica_id
        self.replicas = expected

    async def run(self) -> None:
        """Beat and collect until cancelled; after an error the next round tries again."""
        collect_at = time.monotonic() + random.uniform(0, COLLECT_S)
        while True:
            try:
                await self.beat()
                if time.monotonic() >= collect_at:
                    collect_at = time.monotonic() + COLLECT_S
                    await self.collect()
            except POSTGRES_ERRORS as error:
                log.debug("limiter housekeeping failed", reason=type(error).__name__)
                await expire_if_read_only(error, self._pool)
            await asyncio.sleep(HEARTBEAT_S)

    async def beat(self) -> None:
        """Record that this process is alive, and count those that are. Raises POSTGRES_ERRORS."""
        self.replicas = int(await self._pool.fetchval(_BEAT, self._id, ALIVE_S))

    async def collect(self) -> int:
        """Delete rows whose window is long past or far ahead, in key order, skipping locked ones.

        Raises POSTGRES_ERRORS.
        """
        deleted, after = 0, b""
        while True:
            keys = [row[0] for row in await self._pool.fetch(_COLLECT, after, int(GRACE_S * 1e6), PAGE)]
            deleted += len(keys)
            if len(keys) < PAGE:
                return deleted
            after = max(keys)

    async def ping_ms(self) -> float:
        """Return the milliseconds that a trivial statement takes. Raises POSTGRES_ERRORS."""
        started = time.perf_counter()
        await self._pool.fetchval("SELECT 1")
        return (time.perf_counter() - started) * 1_000

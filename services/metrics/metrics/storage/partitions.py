"""Retention: daily partitions of raw events, created ahead and dropped when old, and the narrowest rollups."""

import zlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Final, NamedTuple

import structlog

from metrics.errors import RowRefused, StoreUnavailable
from metrics.ranges import NARROWEST_KEPT_S, NARROWEST_S, day_bounds
from metrics.storage.database import Connection, Database

log = structlog.get_logger()

TABLES: Final = ("prediction", "counter_event")
_ADVISORY_KEY: Final = zlib.crc32(b"sluice-metrics-partitions")
_LOCK_TIMEOUT: Final = "2s"  # everybody queues behind a waiting exclusive lock, so retry later
_STATEMENT_S: Final = 600.0  # the default partition may have rows of several days
# Rows are locked in the same order as writers lock them. The hint avoids a full scan: most rows have other widths, so
# the planner overestimates how many match.
_ALONG_THE_KEY: Final = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
_DAY: Final = timedelta(days=1)


class PartitionState(NamedTuple):
    """The state after the last maintenance."""

    partitions: int
    default_rows: int
    failed: int = 0
    """Steps that failed: another replica was working on them, a lock timed out, or PostgreSQL rejected them."""


class _LockNotAcquired(Exception):
    """Another replica is changing partitions."""


class Partitions:
    """Creates and drops partitions. Each step is one transaction, and only one replica runs a step at a time.

    A failed step does not stop the others. Days ahead are created first.
    """

    def __init__(self, database: Database, *, retention_days: int, ahead_days: int, now: Callable[[], float]) -> None:
        self._database = database
        self._retention = timedelta(days=retention_days)
        self._ahead_days = ahead_days
        self._now = now
        self._last_day = date.min

    def days_ahead(self) -> int:
        """Return how many days from today have a partition, as of the last successful maintenance."""
        return max(0, (self._last_day - self._today()).days)

    async def maintain(self) -> PartitionState:
        """Create missing partitions and drop old ones. Raises StoreUnavailable if the partitions cannot be listed."""
        now = datetime.fromtimestamp(self._now(), UTC)
        slower = await self._slower(now)
        oldest = (slower - self._retention).date()
        ahead = {now.date() + _DAY * n for n in range(self._ahead_days + 1)}
        failed = 0
        for table in TABLES:
            existing, stray = await self._days(table)
            missing = sorted(ahead - stray - existing)
            steps = [partial(self._create, table, missing)] if missing else []
            steps += [partial(self._move, table, day) for day in sorted(stray - existing) if day >= oldest]
            steps += [partial(self._drop, table, day) for day in sorted(existing | stray) if day < oldest]
            failed += [await _is_done(step, table) for step in steps].count(False)
        failed += not await _is_done(
            partial(self._drop_narrowest, slower - timedelta(seconds=NARROWEST_KEPT_S)), "rollup"
        )
        return (await self._state())._replace(failed=failed)

    def _today(self) -> date:
        return datetime.fromtimestamp(self._now(), UTC).date()

    async def _slower(self, now: datetime) -> datetime:
        """Return the earlier of this clock and the database's, because a wrong clock would drop data."""
        async with self._database.transaction() as connection:
            told: datetime = await connection.fetchval("SELECT clock_timestamp()")
        return min(now, told)

    async def _days(self, table: str) -> tuple[set[date], set[date]]:
        """Return the days with a partition, and the days of which the default partition has rows."""
        stray = f"SELECT DISTINCT (at AT TIME ZONE 'UTC')::date FROM {table}_default"
        async with self._database.transaction() as connection:
            return await _partitioned(connection, table), {
                day for (day,) in await connection.fetch(stray, timeout=_STATEMENT_S)
            }

    async def _create(self, table: str, days: Sequence[date]) -> None:
        """Create the partitions of days without rows, under one lock."""
        async with self._database.transaction() as connection:
            await _take_turn(connection)
            await _hold_writers(connection, table)
            existing = await _partitioned(connection, table)
            for day in days:
                if day not in existing:
                    await connection.execute(f"CREATE TABLE {_name(table, day)} (LIKE {table} INCLUDING ALL)")
                    await _attach(connection, table, day)
        log.info("partitions made", table=table, days=len(days))

    async def _move(self, table: str, day: date) -> None:
        """Create the partition of a day and move its rows from the default one. Writers wait; readers do not."""
        name = _name(table, day)
        async with self._database.transaction() as connection:
            await _take_turn(connection)
            if day in await _partitioned(connection, table):
                return
            await _hold_writers(connection, table)
            await connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
            moved = await connection.fetchval(
                f"WITH moved AS (DELETE FROM {table}_default WHERE at >= $1 AND at < $2 RETURNING *), "
                f"placed AS (INSERT INTO {name} SELECT * FROM moved) SELECT count(*) FROM moved",
                *day_bounds(day),
                timeout=_STATEMENT_S,
            )
            await _attach(connection, table, day)
        log.info("rows moved to their partition", table=table, day=str(day), moved=moved)

    async def _drop(self, table: str, day: date) -> None:
        name, (first, after) = _name(table, day), day_bounds(day)
        async with self._database.transaction() as connection:
            await _take_turn(connection)
            if await connection.fetchval("SELECT to_regclass($1)", name):
                await connection.execute(f"ALTER TABLE {table} DETACH PARTITION {name}")
                await connection.execute(f"DROP TABLE {name}")
            await connection.execute(
                f"DELETE FROM {table}_default WHERE at >= $1 AND at < $2", first, after, timeout=_STATEMENT_S
            )
            await connection.execute(
                "INSERT INTO retention AS old VALUES ($1, $2) ON CONFLICT (relation) "
                "DO UPDATE SET kept_from = greatest(old.kept_from, EXCLUDED.kept_from)",
                table,
                after,
            )
        log.info("day dropped", table=table, day=str(day))

    async def _drop_narrowest(self, before: datetime) -> None:
        """Drop the narrowest rollups of whole minutes."""
        async with self._database.transaction() as connection:
            await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'; {_ALONG_THE_KEY}")
            await connection.execute(
                "DELETE FROM rollup WHERE width_s = $1 AND at < date_bin('1 minute', $2, 'epoch')",
                NARROWEST_S,
                before,
                timeout=_STATEMENT_S,
            )

    async def _state(self) -> PartitionState:
        async with self._database.transaction() as connection:
            days = [await _partitioned(connection, table) for table in TABLES]
            self._last_day = self._today()
            while all(self._last_day + _DAY in existing for existing in days):
                self._last_day += _DAY
            default_rows = 0
            for table in TABLES:
                default_rows += await connection.fetchval(f"SELECT count(*) FROM {table}_default", timeout=_STATEMENT_S)
        return PartitionState(sum(map(len, days)), default_rows)


async def _is_done(step: Callable[[], Awaitable[None]], table: str) -> bool:
    try:
        await step()
    except _LockNotAcquired:
        return False
    except (StoreUnavailable, RowRefused) as error:  # rejected: the day's first rows arrived since the check
        log.warning("partitions not maintained", table=table, reason=str(error))
        return False
    return True


async def _hold_writers(connection: Connection, table: str) -> None:
    """Block writers until the transaction ends: those routed to the default partition would fail afterwards."""
    await connection.execute(f"LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE")


async def _attach(connection: Connection, table: str, day: date) -> None:
    """Attach a partition. Slow, because PostgreSQL searches the default partition for rows of that day."""
    first, after = (bound.isoformat() for bound in day_bounds(day))
    await connection.execute(
        f"ALTER TABLE {table} ATTACH PARTITION {_name(table, day)} FOR VALUES FROM ('{first}') TO ('{after}')",
        timeout=_STATEMENT_S,
    )


async def _take_turn(connection: Connection) -> None:
    """Take the lock for changing partitions until the transaction ends. Raises _LockNotAcquired."""
    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    if not await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _ADVISORY_KEY):
        raise _LockNotAcquired


async def _partitioned(connection: Connection, table: str) -> set[date]:
    names = await connection.fetch(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = $1::text::regclass", table
    )
    suffixes = (row[0].removeprefix(f"{table}_") for row in names)
    return {date.fromisoformat(suffix) for suffix in suffixes if suffix.isdecimal()}


def _name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"

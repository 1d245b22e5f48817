"""Partitions of raw events, one a day: made ahead, filled from the default partition, dropped when too old."""

import zlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Final, NamedTuple

import structlog

from metrics.database import Connection, Database

log = structlog.get_logger()

TABLES: Final = ("prediction", "counter_event")
_ADVISORY_KEY: Final = zlib.crc32(b"sluice-metrics-partitions")
_LOCK_TIMEOUT: Final = "2s"  # ingestion queues up behind a waiting exclusive lock: better to try again later
_DAY: Final = timedelta(days=1)


class PartitionState(NamedTuple):
    """As of the last upkeep."""

    partitions: int
    days_ahead: int
    default_rows: int


class Partitions:
    """Each step is a transaction of its own, taken by one replica at a time; the others skip it."""

    def __init__(self, database: Database, *, retention_days: int, ahead_days: int, now: Callable[[], float]) -> None:
        self._database = database
        self._retention = timedelta(days=retention_days)
        self._ahead_days = ahead_days
        self._now = now

    async def maintain(self) -> PartitionState:
        """Make what is missing and drop what is too old. Raises StoreUnavailable also when a lock was not to be had."""
        now = datetime.fromtimestamp(self._now(), UTC)
        oldest = (now - self._retention).date()
        ahead = {now.date() + _DAY * n for n in range(self._ahead_days + 1)}
        for table in TABLES:
            existing, stray = await self._days(table)
            missing = sorted((ahead | {day for day in stray if day >= oldest}) - existing)
            moved = [await self._create(table, day) for day in missing]
            too_old = sorted(day for day in existing | stray if day < oldest)
            for day in too_old:
                await self._drop(table, day)
            if missing or too_old:
                log.info("partitions changed", table=table, made=len(moved), moved=sum(moved), dropped=len(too_old))
        return await self._state(now.date())

    async def _days(self, table: str) -> tuple[set[date], set[date]]:
        """Days that have a partition, and days of which the default partition has rows."""
        async with self._database.transaction() as connection:
            return await _partitioned(connection, table), {
                row[0]
                for row in await connection.fetch(f"SELECT DISTINCT (at AT TIME ZONE 'UTC')::date FROM {table}_default")
            }

    async def _create(self, table: str, day: date) -> int:
        """Returns how many rows had come before their partition."""
        name = _name(table, day)
        async with self._database.transaction() as connection:
            if not await _turn(connection) or await connection.fetchval("SELECT to_regclass($1)", name):
                return 0
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            await connection.execute(f"CREATE TABLE {name} (LIKE {table} INCLUDING ALL)")
            moved: int = await connection.fetchval(
                f"WITH moved AS (DELETE FROM {table}_default WHERE at >= $1 AND at < $2 RETURNING *), "
                f"placed AS (INSERT INTO {name} SELECT * FROM moved) SELECT count(*) FROM moved",
                *_bounds(day),
            )
            first, after = (bound.isoformat() for bound in _bounds(day))
            await connection.execute(
                f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{after}')"
            )
        return moved

    async def _drop(self, table: str, day: date) -> None:
        name, (first, after) = _name(table, day), _bounds(day)
        async with self._database.transaction() as connection:
            if not await _turn(connection):
                return
            if await connection.fetchval("SELECT to_regclass($1)", name):
                await connection.execute(f"ALTER TABLE {table} DETACH PARTITION {name}")
                await connection.execute(f"DROP TABLE {name}")
            await connection.execute(f"DELETE FROM {table}_default WHERE at >= $1 AND at < $2", first, after)
            await connection.execute(
                "INSERT INTO retention AS old VALUES ($1, $2) ON CONFLICT (relation) "
                "DO UPDATE SET kept_from = greatest(old.kept_from, EXCLUDED.kept_from)",
                table,
                after,
            )

    async def _state(self, today: date) -> PartitionState:
        async with self._database.transaction() as connection:
            days = [await _partitioned(connection, table) for table in TABLES]
            default_rows = 0
            for table in TABLES:
                default_rows += await connection.fetchval(f"SELECT count(*) FROM {table}_default")
        ahead = 0
        while all(today + _DAY * (ahead + 1) in existing for existing in days):
            ahead += 1
        return PartitionState(sum(map(len, days)), ahead, default_rows)


async def _turn(connection: Connection) -> bool:
    """Whether this transaction may change partitions now."""
    await connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _ADVISORY_KEY))


async def _partitioned(connection: Connection, table: str) -> set[date]:
    names = await connection.fetch(
        "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = $1::text::regclass", table
    )
    suffixes = (row[0].removeprefix(f"{table}_") for row in names)
    return {date.fromisoformat(suffix) for suffix in suffixes if suffix.isdecimal()}


def _name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"


def _bounds(day: date) -> tuple[datetime, datetime]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return start, start + _DAY

"""What is kept how long: partitions of raw events, one a day, made ahead and dropped when too old, and fine rollups."""

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
_LOCK_TIMEOUT: Final = "2s"  # all others queue up behind a waiting exclusive lock: better to try again later
_STATEMENT_S: Final = 600.0  # the default partition may hold what came in days
# Rows are locked in the order in which writers lock them. Nor is all of the table read for a few minutes' rows: nearly
# all that it holds is older, of other widths, by which the planner takes them for many.
_ALONG_THE_KEY: Final = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
_DAY: Final = timedelta(days=1)


class PartitionState(NamedTuple):
    """As of the last upkeep."""

    partitions: int
    default_rows: int
    failed: int = 0
    """Steps that could not be done now: another replica is at it, a lock was not to be had, or PostgreSQL refused."""


class _LockNotAcquired(Exception):
    """Another replica changes partitions; what is left to do is known once it is done."""


class Partitions:
    """Each step is a transaction of its own, taken by one replica at a time; to the others it has failed for now.

    No step keeps another from being done: days ahead come first, and need none of the rows that came before their day.
    """

    def __init__(self, database: Database, *, retention_days: int, ahead_days: int, now: Callable[[], float]) -> None:
        self._database = database
        self._retention = timedelta(days=retention_days)
        self._ahead_days = ahead_days
        self._now = now
        self._last_day = date.min

    def days_ahead(self) -> int:
        """Days from today that have a partition, as far as is known: with each day in which upkeep fails one less."""
        return max(0, (self._last_day - self._today()).days)

    async def maintain(self) -> PartitionState:
        """Make what is missing and drop what is too old. Raises StoreUnavailable when not even that can be told."""
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
        """Of our clock and the database's: what a wrong one drops is gone."""
        async with self._database.transaction() as connection:
            told: datetime = await connection.fetchval("SELECT clock_timestamp()")
        return min(now, told)

    async def _days(self, table: str) -> tuple[set[date], set[date]]:
        """Days that have a partition, and days of which the default partition has rows."""
        stray = f"SELECT DISTINCT (at AT TIME ZONE 'UTC')::date FROM {table}_default"
        async with self._database.transaction() as connection:
            return await _partitioned(connection, table), {
                day for (day,) in await connection.fetch(stray, timeout=_STATEMENT_S)
            }

    async def _create(self, table: str, days: Sequence[date]) -> None:
        """Make partitions of days of which there are no rows, all of them under one lock."""
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
        """Make the partition of a day whose rows came before it; writers wait meanwhile, readers don't."""
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
    except (StoreUnavailable, RowRefused) as error:  # refused: the day got its first rows since it was looked at
        log.warning("partitions not maintained", table=table, reason=str(error))
        return False
    return True


async def _hold_writers(connection: Connection, table: str) -> None:
    """Until the transaction ends: one that chose the default partition before would be refused there afterwards."""
    await connection.execute(f"LOCK TABLE ONLY {table} IN SHARE ROW EXCLUSIVE MODE")


async def _attach(connection: Connection, table: str, day: date) -> None:
    """PostgreSQL looks through the default partition for rows of that day, which takes its time."""
    first, after = (bound.isoformat() for bound in day_bounds(day))
    await connection.execute(
        f"ALTER TABLE {table} ATTACH PARTITION {_name(table, day)} FOR VALUES FROM ('{first}') TO ('{after}')",
        timeout=_STATEMENT_S,
    )


async def _take_turn(connection: Connection) -> None:
    """Let this transaction alone change partitions until it ends. Raises _OthersTurn."""
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

"""`python -m metrics.rebuild`: recomputes rollups from the events that are kept, and proves that they are equal.

Only days whose events are all kept are touched; of older ones the rollups are all there is. Run it any time: a day is
not dropped while it is compared or replaced. Meanwhile no partition is made or filled either, for which upkeep tries
for two seconds, in which writers wait, and again later; replacing a day's rollups holds ingestion back while that day
is computed.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Final, NamedTuple

import structlog

from common.runtime import logs
from common.runtime.settings import SettingsError, load
from common.stores.postgres import create_pool
from metrics.alerting.store import evaluation_lock
from metrics.errors import StoreUnavailable
from metrics.ranges import WIDTHS_S, day_bounds
from metrics.settings import MetricsSettings
from metrics.storage.database import Connection, Database
from metrics.storage.rollup_sql import COLUMNS, FACTS_OF_COUNTERS, FACTS_OF_PREDICTIONS, rolled_up

log = structlog.get_logger()

STATEMENT_S: Final = 3_600.0  # a day of many millions of events takes minutes

_RECOMPUTED: Final = f"""
    event AS (
        SELECT {FACTS_OF_PREDICTIONS} FROM prediction WHERE at >= $1 AND at < $2
        UNION ALL SELECT {FACTS_OF_COUNTERS} FROM counter_event WHERE at >= $1 AND at < $2
    ), {rolled_up(WIDTHS_S)}
"""
_STORED: Final = f"SELECT {COLUMNS} FROM rollup WHERE width_s IN (60, 3600, 86400) AND at >= $1 AND at < $2"
_COMPARE: Final = f"""
WITH {_RECOMPUTED}, expected AS MATERIALIZED (SELECT {COLUMNS} FROM rolled), stored AS MATERIALIZED ({_STORED})
SELECT (SELECT count(*) FROM stored),
       (SELECT count(*) FROM (TABLE expected EXCEPT TABLE stored) AS missing),
       (SELECT count(*) FROM (TABLE stored EXCEPT TABLE expected) AS surplus),
       (SELECT coalesce(sum(n), 0)::bigint FROM expected WHERE width_s = 86400)
"""
_REPLACE: Final = f"WITH {_RECOMPUTED} INSERT INTO rollup ({COLUMNS}) SELECT {COLUMNS} FROM rolled"


class Comparison(NamedTuple):
    """How the stored rollup rows of a day differ from what its events add up to."""

    rows: int
    missing: int
    surplus: int
    events: int

    @property
    def is_equal(self) -> bool:
        return not self.missing and not self.surplus


async def complete_days(database: Database) -> list[date]:
    """The days of which every event is kept, oldest first."""
    async with database.transaction() as connection:
        kept_from = await _kept_from(connection)
        records = await connection.fetch(
            "SELECT (at AT TIME ZONE 'UTC')::date FROM rollup WHERE width_s = 86400 "
            "UNION SELECT (at AT TIME ZONE 'UTC')::date FROM prediction "
            "UNION SELECT (at AT TIME ZONE 'UTC')::date FROM counter_event ORDER BY 1"
        )
    return [day for (day,) in records if kept_from is None or day_bounds(day)[0] >= kept_from]


async def compare(database: Database, day: date) -> Comparison | None:
    """Both sides as of one moment; None where not every event of `day` is kept any more."""
    async with database.snapshot() as connection:
        if not await _holds(connection, day):
            return None
        return await _compare(connection, day)


async def replace(database: Database, day: date) -> Comparison | None:
    """Recompute the rollups of `day`, and compare before it counts; writers wait meanwhile.

    None, and nothing is replaced, where not every event of `day` is kept any more.
    """
    async with database.transaction() as connection:
        if not await _holds(connection, day):
            return None
        await connection.execute("LOCK TABLE rollup IN SHARE ROW EXCLUSIVE MODE")
        await recompute(connection, day)
        found = await _compare(connection, day)
        await evaluation_lock(connection)
        return found


async def recompute(connection: Connection, day: date) -> None:
    """Put what the events of `day` add up to in place of its rollups, the fine ones left out: events do for them."""
    await connection.execute("DELETE FROM rollup WHERE at >= $1 AND at < $2", *day_bounds(day))
    await connection.execute(_REPLACE, *day_bounds(day))


async def _holds(connection: Connection, day: date) -> bool:
    """Whether every event of `day` is kept, and is until the transaction ends.

    The first lock keeps partitions from being dropped, the second keeps rows of the default partition: who deletes
    those says so in `retention`. In this order, since who drops a partition comes to `retention` last.
    """
    await connection.execute("LOCK TABLE prediction, counter_event IN ACCESS SHARE MODE")
    await connection.execute("LOCK TABLE retention IN SHARE MODE")
    kept_from = await _kept_from(connection)
    return kept_from is None or day_bounds(day)[0] >= kept_from


async def _kept_from(connection: Connection) -> datetime | None:
    kept_from: datetime | None = await connection.fetchval("SELECT max(kept_from) FROM retention")
    return kept_from


async def _compare(connection: Connection, day: date) -> Comparison:
    record = await connection.fetchrow(_COMPARE, *day_bounds(day))
    assert record is not None  # it selects counts
    return Comparison(*record)


async def rebuild(database: Database, *, check_only: bool) -> bool:
    """Go through all complete days; returns whether the rollups of each equal its events now.

    A day that is dropped before its turn is left alone, as the older ones are.
    """
    equal = True
    for day in await complete_days(database):
        found = await compare(database, day)
        if found is not None and not found.is_equal and not check_only:
            log.warning("rollups differ and are rebuilt", day=str(day), missing=found.missing, surplus=found.surplus)
            replaced = await replace(database, day)
            if replaced is None:
                log.error("rollups differ and cannot be rebuilt: events were dropped meanwhile", day=str(day))
            found = replaced or found
        if found is None:
            log.warning("day left alone: its events were dropped meanwhile", day=str(day))
            continue
        equal = equal and found.is_equal
        log.info("day compared", day=str(day), equal=found.is_equal, **found._asdict())
    return equal


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when all rollups are equal to their events, 1 when they are not, 2 when settings are wrong."""
    parser = argparse.ArgumentParser(prog="python -m metrics.rebuild", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare; change nothing")
    arguments = parser.parse_args(argv)
    try:
        settings = load(MetricsSettings)
    except SettingsError as error:
        print(f"metrics: {error}", file=sys.stderr)  # noqa: T201  # logs are not set up yet
        return 2
    logs.configure("metrics", level=settings.log_level, log_format=settings.log_format)
    return asyncio.run(_run(settings, check_only=arguments.check))


async def _run(settings: MetricsSettings, *, check_only: bool) -> int:
    try:
        async with _opened(settings) as database:
            equal = await rebuild(database, check_only=check_only)
    except StoreUnavailable as error:
        log.error("PostgreSQL cannot be asked", reason=str(error))
        return 1
    log.info("rollups compared", equal=equal)
    return 0 if equal else 1


@asynccontextmanager
async def _opened(settings: MetricsSettings) -> AsyncIterator[Database]:
    dsn = settings.database_url.get_secret_value()
    async with create_pool(
        dsn, schema="metrics", application="sluice-metrics-rebuild", size=1, timeout_s=STATEMENT_S
    ) as pool:
        yield Database(pool, STATEMENT_S)


if __name__ == "__main__":
    sys.exit(main())

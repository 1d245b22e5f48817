"""Partitions by day: made ahead, filled from the default one, dropped when too old."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from metrics.database import Database
from metrics.errors import StoreUnavailable
from metrics.ledger import Ledger
from metrics.partitions import Partitions

DAY_US = 86_400_000_000
AT_US = 1_790_000_000_000_000
TODAY = datetime.fromtimestamp(AT_US / 1_000_000, UTC).date()


@pytest.fixture
def partitions(database: Database, clock: Any) -> Partitions:
    return Partitions(database, retention_days=3, ahead_days=2, now=clock)


@pytest.fixture
def days(rows: Callable[..., Any]) -> Callable[..., Any]:
    """Call it for the days, relative to today, that have a partition, and how many rows each has."""

    async def counted(table: str = "prediction") -> dict[int, int]:
        return {
            (datetime.strptime(name, f"{table}_%Y%m%d").replace(tzinfo=UTC).date() - TODAY).days: n
            for (name,) in await rows(
                "SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = $1::text::regclass",
                table,
            )
            if name != f"{table}_default"
            for ((n,),) in [await rows(f"SELECT count(*)::int FROM {name}")]
        }

    return counted


async def test_upkeep__makes_partitions_ahead_and_then_nothing(
    partitions: Partitions, days: Callable[..., Any]
) -> None:
    state = await partitions.maintain()
    assert await days() == await days("counter_event") == {0: 0, 1: 0, 2: 0}
    assert await partitions.maintain() == state
    assert state == (6, 2, 0)


async def test_days_that_came_before_their_partition__are_moved_out_of_the_default(
    partitions: Partitions,
    days: Callable[..., Any],
    database: Database,
    prediction: Callable[..., Any],
    counter: Callable[..., Any],
) -> None:
    late = [prediction(at_us=AT_US + day * DAY_US) for day in (-2, 0, 0, 1)]
    await Ledger(database).write([*late, counter(at_us=AT_US - DAY_US)])
    state = await partitions.maintain()
    assert await days() == {-2: 1, 0: 2, 1: 1, 2: 0}
    assert await days("counter_event") == {-1: 1, 0: 0, 1: 0, 2: 0}
    assert state.default_rows == 0


async def test_event_moved_out_of_the_default__is_still_known(
    partitions: Partitions, database: Database, prediction: Callable[..., Any]
) -> None:
    event = prediction()
    await Ledger(database).write([event])
    await partitions.maintain()
    assert (await Ledger(database).write([event])).predictions == 0


async def test_late_event_of_a_day_without_partition__is_counted_and_placed_at_the_next_upkeep(
    partitions: Partitions, days: Callable[..., Any], database: Database, prediction: Callable[..., Any]
) -> None:
    await partitions.maintain()
    await Ledger(database).write([prediction(at_us=AT_US - 2 * DAY_US)])
    await partitions.maintain()
    assert await days() == {-2: 1, 0: 0, 1: 0, 2: 0}


async def test_days_past_retention__are_dropped_and_their_rollups_stay(
    partitions: Partitions,
    clock: Any,
    days: Callable[..., Any],
    database: Database,
    rows: Callable[..., Any],
    prediction: Callable[..., Any],
) -> None:
    await partitions.maintain()
    await Ledger(database).write([prediction(), prediction(at_us=AT_US + DAY_US)])
    clock.now_s += timedelta(days=4).total_seconds()
    await partitions.maintain()
    assert await days() == {1: 1, 2: 0, 4: 0, 5: 0, 6: 0}
    kept_from = datetime.combine(TODAY, datetime.min.time(), UTC) + timedelta(days=1)
    assert await rows("SELECT max(kept_from) FROM retention") == [(kept_from,)]
    assert await rows("SELECT sum(n)::int FROM rollup WHERE width_s = 86400") == [(2,)]


async def test_rows_past_retention_in_the_default__are_dropped_too(
    partitions: Partitions, database: Database, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    await Ledger(database).write([prediction(at_us=AT_US - 10 * DAY_US)])
    assert (await partitions.maintain()).default_rows == 0
    assert await rows("SELECT count(*) FROM prediction") == [(0,)]


async def test_replicas_at_once__make_each_partition_once(
    database: Database, clock: Any, days: Callable[..., Any]
) -> None:
    replicas = [Partitions(database, retention_days=3, ahead_days=5, now=clock) for _ in range(3)]
    await asyncio.gather(*(replica.maintain() for replica in replicas))
    await replicas[0].maintain()
    assert set(await days()) == {0, 1, 2, 3, 4, 5}


async def test_table_in_long_use__is_left_for_the_next_time(
    partitions: Partitions, database: Database, days: Callable[..., Any]
) -> None:
    async with database.snapshot() as reader:
        await reader.fetch("SELECT * FROM prediction")
        with pytest.raises(StoreUnavailable):
            await partitions.maintain()
    await partitions.maintain()
    assert set(await days()) == {0, 1, 2}

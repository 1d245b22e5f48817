"""Daily partitions: created ahead, filled from the default one, dropped when old."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from common.stores.postgres import create_pool
from metrics.errors import StoreUnavailable
from metrics.ingest.writer import EventWriter
from metrics.storage.database import Database
from metrics.storage.partitions import Partitions

DAY_US = 86_400_000_000
AT_US = 1_790_000_000_000_000
MANY = """
INSERT INTO prediction
SELECT $1, gen_random_uuid(), 1, 0, 0, 0, 0, NULL, NULL, false, false, '', 'ok', 'm', '1', NULL, '', NULL, NULL, NULL
FROM generate_series(1, $2)
"""
WAITS = """
CREATE TABLE freed ();
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WHILE NOT EXISTS (SELECT FROM freed) LOOP
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN old;
END $$;
CREATE TRIGGER wait BEFORE DELETE ON prediction_default FOR EACH ROW EXECUTE FUNCTION wait()
"""
MOVING = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
TODAY = datetime.fromtimestamp(AT_US / 1_000_000, UTC).date()


@pytest.fixture
def partitions(database: Database, clock: Any) -> Partitions:
    return Partitions(database, retention_days=3, ahead_days=2, now=clock)


@pytest.fixture
def days(rows: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that counts the rows of each partition, by day relative to today."""

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
    assert (state, partitions.days_ahead()) == ((6, 0, 0), 2)


async def test_days_that_came_before_their_partition__are_moved_out_of_the_default(
    partitions: Partitions,
    days: Callable[..., Any],
    database: Database,
    prediction: Callable[..., Any],
    counter: Callable[..., Any],
) -> None:
    late = [prediction(at_us=AT_US + day * DAY_US) for day in (-2, 0, 0, 1)]
    await EventWriter(database).write([*late, counter(at_us=AT_US - DAY_US)])
    state = await partitions.maintain()
    assert await days() == {-2: 1, 0: 2, 1: 1, 2: 0}
    assert await days("counter_event") == {-1: 1, 0: 0, 1: 0, 2: 0}
    assert state.default_rows == 0


async def test_fine_rollups__are_kept_for_three_hours_and_the_others_for_good(
    partitions: Partitions, database: Database, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    minute_us = AT_US // 60_000_000 * 60_000_000
    await EventWriter(database).write(prediction(at_us=minute_us - n * 3_600_000_000) for n in (0, 2, 3, 4))
    await partitions.maintain()
    assert await rows("SELECT width_s, count(*)::int FROM rollup WHERE width_s < 3600 GROUP BY 1 ORDER BY 1") == [
        (10, 3),
        (60, 4),
    ]


async def test_late_events_of_minutes_whose_fine_rollups_go__and_upkeep__never_wait_for_each_other(
    partitions: Partitions, database: Database, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    late_us = AT_US - 4 * 3_600_000_000
    for label in "BA":  # stored in another order than their keys
        await EventWriter(database).write([prediction(at_us=late_us, label=label)])
    touched = "UPDATE rollup SET n = n WHERE width_s = 10 AND label = $1"
    await rows("ANALYZE rollup")
    async with database.transaction() as writing:
        await writing.execute(touched, "A")
        maintenance = asyncio.create_task(partitions.maintain())
        while not await rows(WAITING):
            await asyncio.sleep(0.01)
        await writing.execute(touched, "B")
    assert not (await maintenance).failed
    assert await rows("SELECT FROM rollup WHERE width_s = 10") == []


async def test_event_moved_out_of_the_default__is_still_known(
    partitions: Partitions, database: Database, prediction: Callable[..., Any]
) -> None:
    event = prediction()
    await EventWriter(database).write([event])
    await partitions.maintain()
    assert (await EventWriter(database).write([event])).predictions == 0


async def test_late_event_of_a_day_without_partition__is_counted_and_placed_at_the_next_upkeep(
    partitions: Partitions, days: Callable[..., Any], database: Database, prediction: Callable[..., Any]
) -> None:
    await partitions.maintain()
    await EventWriter(database).write([prediction(at_us=AT_US - 2 * DAY_US)])
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
    await EventWriter(database).write([prediction(), prediction(at_us=AT_US + DAY_US)])
    clock.now_s += timedelta(days=4).total_seconds()
    await partitions.maintain()
    assert await days() == {1: 1, 2: 0, 4: 0, 5: 0, 6: 0}
    kept_from = datetime.combine(TODAY, datetime.min.time(), UTC) + timedelta(days=1)
    assert await rows("SELECT max(kept_from) FROM retention") == [(kept_from,)]
    assert await rows("SELECT sum(n)::int FROM rollup WHERE width_s = 86400") == [(2,)]


async def test_clock_that_is_far_ahead__drops_nothing(
    partitions: Partitions, database: Database, clock: Any, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    [(now,)] = await rows("SELECT clock_timestamp()")
    clock.now_s = now.timestamp()
    await partitions.maintain()
    await EventWriter(database).write([prediction(at_us=int(clock.now_s * 1_000_000))])
    clock.now_s += timedelta(days=400).total_seconds()
    await partitions.maintain()
    assert await rows("SELECT count(*) FROM prediction") == [(1,)]
    assert await rows("SELECT count(*) FROM retention") == [(0,)]


async def test_rows_past_retention_in_the_default__are_dropped_too(
    partitions: Partitions, database: Database, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    await EventWriter(database).write([prediction(at_us=AT_US - 10 * DAY_US)])
    assert (await partitions.maintain()).default_rows == 0
    assert await rows("SELECT count(*) FROM prediction") == [(0,)]


async def test_straggler_of_a_day_long_dropped__does_not_make_later_days_whole_again(
    partitions: Partitions, database: Database, rows: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    kept = []
    for days_ago in (5, 10):
        await EventWriter(database).write([prediction(at_us=AT_US - days_ago * DAY_US)])
        await partitions.maintain()
        kept += await rows("SELECT kept_from FROM retention WHERE relation = 'prediction'")
    midnight = datetime.combine(TODAY, datetime.min.time(), UTC)
    assert kept == [(midnight - timedelta(days=4),)] * 2


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
        assert (await partitions.maintain()).failed == 1
    assert set(await days("counter_event")) == {0, 1, 2}
    assert (await partitions.maintain()).failed == 0
    assert set(await days()) == {0, 1, 2}


async def test_day_that_cannot_be_moved__keeps_no_other_from_being_made(
    partitions: Partitions, database: Database, days: Callable[..., Any], prediction: Callable[..., Any]
) -> None:
    await EventWriter(database).write([prediction(at_us=AT_US - n * DAY_US) for n in (1, 2)])
    async with database.transaction() as connection:
        await connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF old.at < to_timestamp({AT_US // 1_000_000 - 86_400 * 3 // 2}) THEN RAISE 'no'; END IF; "
            "RETURN old; END $$"
        )
        await connection.execute(
            "CREATE TRIGGER refuse BEFORE DELETE ON prediction_default FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    state = await partitions.maintain()
    assert await days() == {-1: 1, 0: 0, 1: 0, 2: 0}
    assert (partitions.days_ahead(), state.default_rows, state.failed) == (2, 1, 1)


async def test_default_with_many_rows__is_emptied_however_long_that_takes(
    metrics_url: str, database: Database, clock: Any, days: Callable[..., Any]
) -> None:
    rows = 300_000
    async with database.transaction() as connection:
        await connection.execute(MANY, datetime.fromtimestamp(AT_US / 1_000_000, UTC), rows, timeout=300)
    async with create_pool(metrics_url, schema="metrics", application="test", size=1, timeout_s=1) as pool:
        partitions = Partitions(Database(pool, 1), retention_days=3, ahead_days=2, now=clock)
        async with asyncio.timeout(300):
            while not await is_done(partitions):  # a busy machine may exceed the second also for short steps
                pass
    assert await days() == {0: rows, 1: 0, 2: 0}


async def is_done(partitions: Partitions) -> bool:
    try:
        return not (await partitions.maintain()).failed
    except StoreUnavailable:
        return False


async def test_day_that_is_moved__can_be_read_meanwhile(
    partitions: Partitions, database: Database, prediction: Callable[..., Any], rows: Callable[..., Any]
) -> None:
    await partitions.maintain()
    await EventWriter(database).write([prediction(at_us=AT_US - DAY_US)])
    async with database.transaction() as connection:
        await connection.execute(WAITS)  # holds the move half-way
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        moving = tasks.create_task(partitions.maintain())
        while not await rows(MOVING):
            pass
        assert await rows("SELECT count(*) FROM prediction") == [(1,)]
        await rows("INSERT INTO freed DEFAULT VALUES")
    assert moving.result().failed == 0


async def test_replica_that_finds_another_at_work__says_that_it_has_not_done_all(
    partitions: Partitions, database: Database, prediction: Callable[..., Any], rows: Callable[..., Any]
) -> None:
    await EventWriter(database).write([prediction()])
    async with database.transaction() as connection:
        await connection.execute(WAITS)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        moving = tasks.create_task(partitions.maintain())
        while not await rows(MOVING):
            pass
        assert (await partitions.maintain()).failed == 2  # moving this day's rows, and the other table's days
        await rows("INSERT INTO freed DEFAULT VALUES")
    assert moving.result().failed == 0
    assert (await partitions.maintain()).failed == 0


async def test_day_that_gets_its_first_rows_while_its_partition_is_made__is_made_at_the_next_upkeep(
    partitions: Partitions, database: Database, days: Callable[..., Any], rows: Callable[..., Any]
) -> None:
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        async with database.transaction() as writer:
            await writer.execute(MANY, datetime.fromtimestamp(AT_US / 1_000_000, UTC), 1)
            making = tasks.create_task(partitions.maintain())  # no row is visible yet, so it waits for the writer
            while not (making.done() or await rows(WAITING)):
                pass
    assert making.result().failed == 1
    assert set(await days("counter_event")) == {0, 1, 2}
    assert (await partitions.maintain()).failed == 0
    assert await days() == {0: 1, 1: 0, 2: 0}

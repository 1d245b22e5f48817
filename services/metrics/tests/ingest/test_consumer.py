"""Events reach the tables exactly once, whichever process is killed."""

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from common.contracts.events import STREAM
from common.stores.postgres import create_pool
from launcher.testing import migrate
from metrics.errors import StoreTooSlow, StoreUnavailable
from metrics.ingest.consumer import DAY_US, Consumer
from metrics.ingest.stream import GROUP
from metrics.ingest.writer import EventWriter, WriteResult
from metrics.query.rollups import Rollups
from metrics.storage.database import Database

AT_US = 1_790_000_000_000_000


async def drain(consumer: Consumer) -> None:
    """Step until the stream is empty. The group must exist."""
    while await consumer.step():
        pass


@pytest.fixture
async def group(reader: Callable[..., Any]) -> None:
    await reader().create_group()


@pytest.fixture
def counted(rows: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that counts (raw predictions, predictions in each rollup)."""

    async def count() -> tuple[int, list[int]]:
        [(raw,)] = await rows("SELECT count(*) FROM prediction")
        return raw, [n for (n,) in await rows("SELECT sum(n)::int FROM rollup GROUP BY width_s")]

    return count


async def test_event_sent_again__counts_once(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    send: Callable[..., Any],
    counted: Callable[..., Any],
    prediction: Callable[..., Any],
) -> None:
    events = [prediction() for _ in range(5)]
    await send(*events, *events)
    await drain(consumer(reader(batch=3)))
    await send(*events)
    await drain(consumer(reader()))
    assert await counted() == (5, [5] * 4)


async def test_consumer_killed_between_commit_and_acknowledgement__leaves_nothing_lost_or_counted_twice(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    redis: Redis,
    send: Callable[..., Any],
    counted: Callable[..., Any],
    prediction: Callable[..., Any],
    metrics_url: str,
    redis_url: str,
) -> None:
    await send(*(prediction() for _ in range(100)))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__).with_name("killed_consumer.py")), metrics_url, redis_url
    )
    assert await process.wait() == -signal.SIGKILL
    assert await counted() == (40, [40] * 4)
    assert (await redis.xpending(STREAM, GROUP))["pending"] == 40
    await drain(consumer(reader()))
    assert await counted() == (100, [100] * 4)
    assert (await redis.xpending(STREAM, GROUP))["pending"] == 0


async def test_two_consumers_at_once__count_every_event_once(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    send: Callable[..., Any],
    counted: Callable[..., Any],
    prediction: Callable[..., Any],
    dead: Callable[..., Any],
) -> None:
    events = [prediction(label=f"l{n % 7}") for n in range(600)]
    await send(*events, *events[::3])
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for name in ("one", "two", "three"):
            tasks.create_task(drain(consumer(reader(name, batch=50))))
    assert await counted() == (600, [600] * 4)
    assert await dead() == []


async def test_bad_entries__are_set_aside_and_the_others_counted(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    send: Callable[..., Any],
    counted: Callable[..., Any],
    prediction: Callable[..., Any],
    dead: Callable[..., Any],
) -> None:
    refused = [prediction(request_id="\x00"), prediction(model="\x00")]
    await send(
        prediction(), b"nonsense", refused[0], prediction(at_us=AT_US - 31 * DAY_US), prediction(), refused[1],
        prediction(at_us=AT_US + 2 * DAY_US), b"\xff", prediction(),
    )  # fmt: skip
    await drain(consumer(reader()))
    assert await counted() == (3, [3] * 4)
    assert sorted(await dead()) == ["in_future", "malformed", "malformed", "refused", "refused", "too_old"]


async def test_batch_of_refused_rows_only__does_not_block_what_follows(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    send: Callable[..., Any],
    counted: Callable[..., Any],
    prediction: Callable[..., Any],
    dead: Callable[..., Any],
) -> None:
    await send(*(prediction(model="\x00") for _ in range(7)), prediction())
    await drain(consumer(reader(batch=7)))
    assert await counted() == (1, [1] * 4)
    assert await dead() == ["refused"] * 7


class AwayLedger(EventWriter):
    """The first writes fail with StoreUnavailable."""

    def __init__(self, database: Database, failures: int) -> None:
        super().__init__(database)
        self.failures = failures

    async def write(self, events: Any) -> WriteResult:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        return await super().write(events)


class OddLedger(AwayLedger):
    """The first writes fail with an unexpected error."""

    async def write(self, events: Any) -> WriteResult:
        try:
            return await super().write(events)
        except StoreUnavailable:
            raise RuntimeError from None


async def test_unexpected_error__does_not_end_ingestion_and_costs_no_event(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    database: Database,
    send: Callable[..., Any],
    counted: Callable[..., Any],
    prediction: Callable[..., Any],
) -> None:
    await send(*(prediction() for _ in range(3)))
    going_on = consumer(reader(), OddLedger(database, failures=2))
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(going_on.run())
        while (await counted())[0] < 3:
            pass
        going_on.stop()
    assert await counted() == (3, [3] * 4)


async def test_postgres_away__keeps_the_batch_and_reads_no_further(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    redis: Redis,
    database: Database,
    send: Callable[..., Any],
    counted: Callable[..., Any],
    prediction: Callable[..., Any],
) -> None:
    await send(*(prediction() for _ in range(5)))
    writer = AwayLedger(database, failures=2)
    await consumer(reader(batch=2), writer).step()
    assert writer.failures == 0
    assert await counted() == (2, [2] * 4)
    assert (await redis.xinfo_groups(STREAM))[0]["lag"] == 3


async def test_postgres_away_for_long__is_tried_again_after_seconds_at_most(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    database: Database,
    send: Callable[..., Any],
    counted: Callable[..., Any],
    prediction: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seconds are milliseconds here. Doubled thirty times, a delay would be two weeks."""
    monkeypatch.setattr("metrics.ingest.consumer._BACKOFF_MIN_S", 0.0001)
    monkeypatch.setattr("metrics.ingest.consumer._BACKOFF_MAX_S", 0.005)
    await send(prediction())
    async with asyncio.timeout(60):
        await consumer(reader(), AwayLedger(database, failures=30)).step()
    assert await counted() == (1, [1] * 4)


class SlowLedger(EventWriter):
    """Batches above a size time out."""

    def __init__(self, database: Database, most: int) -> None:
        super().__init__(database)
        self.most = most
        self.asked: list[int] = []

    async def write(self, events: Any) -> WriteResult:
        given = list(events)
        self.asked.append(len(given))
        if len(given) > self.most:
            raise StoreTooSlow("slow")
        return await super().write(given)


async def test_batch_too_large_for_its_time__is_halved(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    database: Database,
    send: Callable[..., Any],
    counted: Callable[..., Any],
    prediction: Callable[..., Any],
) -> None:
    await send(*(prediction() for _ in range(20)))
    writer = SlowLedger(database, most=10)
    assert await consumer(reader(), writer).step() == 20
    assert writer.asked == [20, 10, 10]
    assert await counted() == (20, [20] * 4)


async def test_stop_while_postgres_is_slow__leaves_the_batch_to_others(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    redis: Redis,
    database: Database,
    send: Callable[..., Any],
    prediction: Callable[..., Any],
) -> None:
    await send(*(prediction() for _ in range(2)))
    writer = SlowLedger(database, most=0)
    stopped = consumer(reader(), writer)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(stopped.run())
        while not writer.asked:
            await asyncio.sleep(0)
        stopped.stop()
    assert (await redis.xpending(STREAM, GROUP))["pending"] == 2


class TimedLedger(EventWriter):
    """Records the start of each transaction."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.begun_s: list[float] = []

    async def write(self, events: Any) -> WriteResult:
        self.begun_s.append(asyncio.get_running_loop().time())
        return await super().write(events)


async def test_events_that_trickle_in__share_a_transaction_each_half_second(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    database: Database,
    send: Callable[..., Any],
    counted: Callable[..., Any],
    prediction: Callable[..., Any],
) -> None:
    writer = TimedLedger(database)
    running = consumer(reader(batch=100_000), writer)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        tasks.create_task(running.run())
        while len(writer.begun_s) < 3:
            await send(prediction())
        running.stop()
    raw, by_width = await counted()
    assert raw > 3
    assert by_width == [raw] * 4
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(writer.begun_s))


async def test_full_batches__do_not_wait(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    database: Database,
    send: Callable[..., Any],
    prediction: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("metrics.ingest.consumer._LINGER_S", 3600.0)
    await send(*(prediction() for _ in range(5)))
    writer = TimedLedger(database)
    running = consumer(reader(batch=1), writer)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(running.run())
        while len(writer.begun_s) < 5:
            await asyncio.sleep(0)
        running.stop()


async def test_stop_while_postgres_is_away__leaves_the_batch_to_others(
    group: None,
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    redis: Redis,
    database: Database,
    send: Callable[..., Any],
    prediction: Callable[..., Any],
) -> None:
    await send(prediction())
    stopped = consumer(reader(), AwayLedger(database, failures=1_000_000))
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(stopped.run())
        while not (await redis.xpending(STREAM, GROUP))["pending"]:
            pass
        stopped.stop()
    assert (await redis.xpending(STREAM, GROUP))["pending"] == 1


async def test_postgres_killed_and_started_again__loses_and_doubles_nothing(
    group: None,
    own_postgres: Callable[..., Any],
    consumer: Callable[..., Any],
    reader: Callable[..., Any],
    send: Callable[..., Any],
    prediction: Callable[..., Any],
) -> None:
    server = own_postgres(fsync="on", synchronous_commit="on")
    migrate("metrics", server.url())
    async with create_pool(server.url(), schema="metrics", application="test", timeout_s=20) as pool:
        database = Database(pool, 20)
        running = consumer(reader(batch=10), EventWriter(database))

        async def count() -> int:
            with suppress(StoreUnavailable):  # the killed server may only just have closed the connection
                return await Rollups(database).count()
            return 0

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(running.run())
            await send(*(prediction() for _ in range(200)))
            await asyncio.to_thread(server.kill)
            await send(*(prediction() for _ in range(200)))
            server.start()
            while await count() < 400:
                pass
            running.stop()
        async with database.transaction() as connection:
            assert await connection.fetchval("SELECT count(*) FROM prediction") == 400
            counts = await connection.fetch("SELECT sum(n)::int AS n FROM rollup GROUP BY width_s")
        assert [row["n"] for row in counts] == [400] * 4

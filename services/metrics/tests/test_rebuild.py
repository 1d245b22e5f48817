"""Rollups are what the kept events add up to, and are made so again where they are not."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from metrics.alerting.store import try_evaluation_lock
from metrics.ingest.writer import EventWriter
from metrics.rebuild import compare, complete_days, rebuild, replace
from metrics.storage.database import Connection, Database
from metrics.storage.partitions import Partitions

AT_US = 1_790_000_000_000_000
DAY_US = 86_400_000_000
TODAY = datetime.fromtimestamp(AT_US / 1_000_000, UTC).date()
ALL = "SELECT * FROM rollup WHERE width_s >= 60 ORDER BY width_s, at, model, route, outcome, label"
WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


class Interrupted(Database):
    """One in which something else happens before the transaction of that number."""

    def __init__(self, database: Database, before: int, happens: Callable[[], Awaitable[Any]]) -> None:
        super().__init__(database._pool, database._timeout_s)
        self._left = before
        self._happens = happens

    @asynccontextmanager
    async def _begun(self, **mode: Any) -> AsyncIterator[Connection]:
        self._left -= 1
        if not self._left:
            await self._happens()
        async with super()._begun(**mode) as connection:
            yield connection


@pytest.fixture
async def filled(database: Database, prediction: Callable[..., Any], counter: Callable[..., Any]) -> None:
    """Three days of events, written in batches that merge, and one of refusals alone."""
    for batch in range(4):
        await EventWriter(database).write(
            [
                *(
                    prediction(
                        at_us=AT_US + (n % 3 - 1) * DAY_US + n * 7_000_000,
                        latency_us=1 + n * batch * 37,
                        label="PN"[n % 2],
                        score=(n % 11) / 10,
                        outcome="ok" if n % 5 else "error",
                    )
                    for n in range(60)
                ),
                counter(n=1 + batch),
                counter(n=1, at_us=AT_US - 2 * DAY_US),
            ]
        )


async def test_rollups_as_written__are_equal(filled: None, database: Database, rows: Callable[..., Any]) -> None:
    before = await rows(ALL)
    assert await rebuild(database, check_only=True) is True
    assert len(await complete_days(database)) == 4
    assert await rows(ALL) == before


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM rollup WHERE width_s = 3600",
        "DELETE FROM rollup",
        "UPDATE rollup SET n = n + 1 WHERE width_s = 86400",
        "UPDATE rollup SET latency_bins = latency_bins + 1 WHERE width_s = 60 AND latency_bins > 0",
        "INSERT INTO rollup SELECT at, 60, 0, 1, 0, 0, 0, 0, 'x', '', 'ok', '', 0, 0, 0, 0 FROM prediction LIMIT 1",
    ],
)
async def test_damaged_rollups__are_found_and_rebuilt_as_they_were(
    filled: None, database: Database, rows: Callable[..., Any], damage: str
) -> None:
    before = await rows(ALL)
    await rows(damage)
    assert await rebuild(database, check_only=True) is False
    assert await rebuild(database, check_only=False) is True
    assert await rows(ALL) == before


async def test_days_of_which_events_were_dropped__keep_their_rollups(
    filled: None, database: Database, clock: Any, rows: Callable[..., Any]
) -> None:
    before = await rows(ALL)
    await rows("INSERT INTO retention VALUES ('counter_event', $1)", datetime.fromtimestamp(0, UTC))
    clock.now_s += 86_400
    await Partitions(database, retention_days=1, ahead_days=1, now=clock).maintain()
    assert min(await complete_days(database)) == TODAY
    assert await rebuild(database, check_only=False) is True
    assert await rows(ALL) == before


@pytest.mark.parametrize(
    ("damaged", "before"), [(False, 2), (True, 3)], ids=["before it is compared", "before it is replaced"]
)
async def test_day_that_is_dropped_meanwhile__keeps_its_rollups(
    filled: None, database: Database, clock: Any, rows: Callable[..., Any], damaged: bool, before: int
) -> None:
    if damaged:
        await rows(f"UPDATE rollup SET n = n + 1 WHERE at < '{TODAY}'")
    stored = await rows(ALL)
    clock.now_s += 86_400
    maintenance = Partitions(database, retention_days=1, ahead_days=1, now=clock)
    interrupted = Interrupted(database, before, maintenance.maintain)  # the first transaction lists the days
    assert await rebuild(interrupted, check_only=False) is not damaged
    assert await rows(ALL) == stored
    assert min(await complete_days(database)) == TODAY


async def test_day_that_is_replaced_while_rules_are_judged__counts_once_they_are(
    filled: None, database: Database, rows: Callable[..., Any]
) -> None:
    fine = f"SELECT FROM rollup WHERE width_s = 5 AND at::date = '{TODAY}'"
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        async with database.transaction() as judging:
            assert await try_evaluation_lock(judging)
            replacing = tasks.create_task(replace(database, TODAY))
            while not (replacing.done() or await rows(WAITING)):
                pass
            found = await rows(fine)
    assert found
    assert await rows(fine) == []


@pytest.mark.parametrize("partitioned", [False, True])
async def test_day_that_is_replaced__is_not_dropped_meanwhile(
    database: Database, prediction: Callable[..., Any], clock: Any, rows: Callable[..., Any], partitioned: bool
) -> None:
    keeping, dropping = (Partitions(database, retention_days=n, ahead_days=1, now=clock) for n in (30, 1))
    await keeping.maintain()
    await EventWriter(database).write([prediction(at_us=AT_US - 2 * DAY_US) for _ in range(10)])
    if partitioned:
        await keeping.maintain()
    stored = await rows(ALL)
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        async with database.transaction() as writer:  # replacing waits for it
            await writer.execute("LOCK TABLE rollup IN ROW EXCLUSIVE MODE")
            replacing = tasks.create_task(replace(database, TODAY - timedelta(days=2)))
            while not await rows(WAITING):
                pass
            maintenance = tasks.create_task(dropping.maintain())
            while len(await rows(WAITING)) < 2 and not maintenance.done():
                pass
    assert replacing.result()
    assert await rows(ALL) == stored


async def test_comparison_beside_ingestion__is_of_one_moment(
    filled: None, database: Database, prediction: Callable[..., Any]
) -> None:
    async def ingest() -> None:
        for _ in range(20):
            await EventWriter(database).write([prediction() for _ in range(50)])

    writing = asyncio.create_task(ingest())
    while not writing.done():
        found = await compare(database, TODAY)
        assert found is not None
        assert found.is_equal
    await writing


@pytest.mark.parametrize(
    ("arguments", "damaged", "status", "changes"),
    [(["--check"], False, 0, False), (["--check"], True, 1, False), ([], True, 0, True)],
)
async def test_command__exits_by_what_it_found_and_changes_nothing_when_it_only_checks(
    filled: None,
    metrics_url: str,
    rows: Callable[..., Any],
    arguments: list[str],
    damaged: bool,
    status: int,
    changes: bool,
) -> None:
    if damaged:
        await rows("UPDATE rollup SET n = n + 1")
    before = await rows(ALL)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "metrics.rebuild", *arguments, env={"DATABASE_URL": metrics_url}
    )
    assert await process.wait() == status
    assert (await rows(ALL) != before) is changes


@pytest.mark.parametrize(
    ("variable", "value", "status"), [("LOG_LEVEL", "loud", 2), ("DATABASE_URL", "postgresql://u@127.0.0.1:{}/d", 1)]
)
async def test_command_that_cannot_look__says_so_in_a_line(
    metrics_url: str, free_port: Callable[[], int], variable: str, value: str, status: int
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "metrics.rebuild",
        env={"DATABASE_URL": metrics_url, variable: value.format(free_port())},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert (process.returncode, output.count(b"\n")) == (status, 1)

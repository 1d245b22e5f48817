"""Errors when PostgreSQL takes too long."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager

import asyncpg
import pytest

from common.stores.postgres import create_pool
from metrics.errors import StoreTooSlow, StoreUnavailable
from metrics.storage.database import Connection, Database

Begin = Callable[[Database], AbstractAsyncContextManager[Connection]]


@pytest.mark.parametrize("limit", ["", "SET LOCAL statement_timeout = 1; "])
async def test_statement_that_is_cut_off__is_told_from_a_store_that_is_away(metrics_url: str, limit: str) -> None:
    async with asyncpg.create_pool(metrics_url, min_size=1, max_size=1, command_timeout=2) as pool:  # has connected
        with pytest.raises(StoreTooSlow):
            async with Database(pool, 20).transaction() as connection:
                await connection.execute(f"{limit}SELECT pg_sleep(60)")


async def test_connection_that_is_not_to_be_had__is_no_slow_statement(metrics_url: str) -> None:
    async with create_pool(metrics_url, schema="metrics", application="test", size=1, timeout_s=20) as pool:
        async with Database(pool, 20).transaction():
            with pytest.raises(StoreUnavailable) as caught:
                async with Database(pool, 0.01).transaction():
                    pass
    assert not isinstance(caught.value, StoreTooSlow)


@pytest.mark.parametrize("begin", [Database.transaction, Database.snapshot])
async def test_process_that_stands_still_in_a_transaction__keeps_its_locks_for_a_moment_only(
    metrics_url: str, database: Database, begin: Begin
) -> None:
    is_locked = False
    async with create_pool(metrics_url, schema="metrics", application="test", size=1, timeout_s=20) as pool:
        for idle_s in (0.1, 1.0, 10.0):  # on a busy machine a session may end before its transaction starts
            paused = Database(pool, 20, idle_s=idle_s, reader_idle_s=idle_s)
            with pytest.raises(StoreUnavailable):
                async with begin(paused) as connection:
                    await connection.execute("SELECT FROM evaluation")
                    async with database.transaction() as other:
                        await other.execute("LOCK TABLE evaluation IN ACCESS EXCLUSIVE MODE")
                        is_locked = True
                    await connection.execute("SELECT FROM evaluation")
            if is_locked:
                break
        assert is_locked
        await touch(Database(pool, 20))  # now in another session


async def test_answer_that_takes_long_to_add_up__keeps_its_snapshot(metrics_url: str, database: Database) -> None:
    """It pauses for longer than a writing transaction may; such a one, started later, is ended meanwhile."""
    lock = "SELECT pg_advisory_xact_lock(1)"
    async with create_pool(metrics_url, schema="metrics", application="test", size=2, timeout_s=20) as pool:
        paused = Database(pool, 20, idle_s=0.1)
        async with paused.snapshot() as reading:
            await reading.execute("SELECT FROM evaluation")
            with pytest.raises(StoreUnavailable):
                async with paused.transaction() as writing:
                    await writing.execute(lock)
                    async with database.transaction() as other:
                        await other.execute(lock)
                    await writing.execute("SELECT")
            await reading.execute("SELECT FROM evaluation")


async def test_server_that_ceased_to_take_writes__is_left(
    metrics_url: str, demoted: Callable[[str], AbstractContextManager[str]]
) -> None:
    with demoted(metrics_url) as url:
        pool = await create_pool(url, schema="metrics", application="test", timeout_s=20)
        database = Database(pool, 20)
        async with database.transaction(), database.transaction():
            pass  # needs two connections
    with pytest.raises(StoreUnavailable, match="ReadOnlySQLTransactionError"):
        await touch(database)
    await touch(database)
    await pool.close()


async def touch(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("UPDATE evaluation SET at = at")

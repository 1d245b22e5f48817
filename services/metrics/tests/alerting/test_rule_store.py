"""Versions of the thresholds document, with writers that race."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from common.contracts.thresholds import ThresholdRule
from metrics.alerting.rule_store import ThresholdStore, Versioned
from metrics.alerting.rules import DEFAULT, Thresholds
from metrics.errors import VersionConflict
from metrics.storage.database import Database

WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def store(database: Database) -> ThresholdStore:
    return ThresholdStore(database)


def document(limit: float) -> Thresholds:
    return Thresholds(rules=[ThresholdRule(name="r", metric="requests", above=limit)])


async def test_nothing_stored__is_the_default_at_version_0(store: ThresholdStore) -> None:
    assert await store.get() == Versioned(0, DEFAULT)


async def test_replaced_document__is_in_force_and_its_predecessors_are_kept(
    store: ThresholdStore, rows: Callable[..., Any]
) -> None:
    for version in range(3):
        replaced = await store.replace(document(version), expected=frozenset({version}))
        assert replaced == await store.get() == Versioned(version + 1, document(version))
    kept = await rows("SELECT version, document #>> '{rules,0,above}' FROM threshold_document ORDER BY version")
    assert kept == [(1, "0.0"), (2, "1.0"), (3, "2.0")]


async def test_writer_who_read_an_older_version__is_refused(store: ThresholdStore) -> None:
    await store.replace(document(1), expected=frozenset({0}))
    with pytest.raises(VersionConflict):
        await store.replace(document(2), expected=frozenset({0}))
    assert (await store.get()).document == document(1)


async def test_of_many_writers_at_once__one_wins(store: ThresholdStore) -> None:
    results = await asyncio.gather(
        *(store.replace(document(n), expected=frozenset({0})) for n in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, Versioned) for result in results) == 1
    assert sum(isinstance(result, VersionConflict) for result in results) == 7


async def test_writers_who_accept_any_version__all_get_one(store: ThresholdStore) -> None:
    results = await asyncio.gather(*(store.replace(document(n), expected=None) for n in range(8)))
    assert sorted(result.version for result in results) == list(range(1, 9))


async def test_writer_who_waited_for_another__is_in_force_from_after_the_other_on(
    store: ThresholdStore, database: Database, rows: Callable[..., Any]
) -> None:
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks, database.transaction() as other:
        await other.execute("LOCK TABLE threshold_document IN SHARE ROW EXCLUSIVE MODE")
        writing = tasks.create_task(store.replace(document(2), expected=None))
        while not await rows(WAITING):
            pass
        await other.execute(
            "INSERT INTO threshold_document VALUES (1, clock_timestamp(), $1)", document(1).model_dump_json()
        )
    assert writing.result().version == 2
    newest, oldest = (await store.history(limit=2, before=None)).versions
    assert newest.at > oldest.at

"""Rollups equal the sums of their events."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from rollup_check import differing_rows

from metrics.ingest.writer import EventWriter
from metrics.storage.database import Database

AT_US = 1_790_000_000_000_000
DAY_US = 86_400_000_000


@pytest.fixture
async def filled(database: Database, prediction: Callable[..., Any], counter: Callable[..., Any]) -> None:
    """Three days of events in batches that merge, and one day of rejections only."""
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


async def test_rollups__equal_their_events(filled: None, database: Database) -> None:
    assert await differing_rows(database) == 0


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM rollup WHERE width_s = 3600",
        "UPDATE rollup SET n = n + 1 WHERE width_s = 86400",
        "UPDATE rollup SET latency_bins = latency_bins + 1 WHERE width_s = 60 AND latency_bins > 0",
    ],
)
async def test_comparison__finds_damaged_rollups(
    filled: None, database: Database, rows: Callable[..., Any], damage: str
) -> None:
    await rows(damage)
    assert await differing_rows(database) > 0


async def test_rollups_during_ingestion__equal_their_events_at_every_moment(
    database: Database, prediction: Callable[..., Any]
) -> None:
    async def ingest() -> None:
        for _ in range(20):
            await EventWriter(database).write([prediction() for _ in range(50)])

    writing = asyncio.create_task(ingest())
    while not writing.done():
        assert await differing_rows(database) == 0
    await writing

"""Past reports in a real PostgreSQL, and that no report waits for it."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestClient
from pydantic import SecretStr

from analyst.app import migrate as run_migrations
from analyst.report.models import Report, Windows
from analyst.report.store import ReportStore, ReportStoreLimits, ReportStoreUnavailable, open_report_store
from analyst.settings import AnalystSettings
from common.contracts.windows import TimeRange
from common.http.context import uuid7
from common.runtime.settings import StartError
from common.stores.migrations import migrate
from common.stores.postgres import create_pool
from launcher.postgres import Postgres

NOW = datetime.now(UTC)
LIMITS = ReportStoreLimits(keep_days=30, timeout_s=5)

Client = TestClient[Any, Any]
OpenClient = Callable[..., Awaitable[Client]]


def _report(generated_at: datetime = NOW, **changes: Any) -> Report:
    hour = TimeRange(start=NOW - timedelta(hours=1), end=NOW)
    values: dict[str, Any] = {
        "report_id": uuid7(),
        "generated_at": generated_at,
        "status": "healthy",
        "summary": "The service is healthy.",
        "figures": [],
        "findings": [],
        "recommendations": [],
        "source": "rules",
        "fallback_reason": "no_key",
        "cache": "miss",
        "model": None,
        "prompt_version": "1",
        "metrics_digest": "0" * 64,
        "windows": Windows(name="1h", current=hour, previous=hour),
        "incident": None,
        "interpretation": None,
        "usage": None,
        "limitations": [],
    }
    return Report(**values | changes)


async def _stored_by_another_version(url: str, **words: Any) -> str:
    """The id of a report that has `words` of which this version has never heard; none leaves an empty document."""
    report = _report()
    document = report.model_dump(mode="json") | words if words else {}
    async with create_pool(url, schema="analyst", application="test") as pool:
        values = report.report_id, report.generated_at, json.dumps(document)
        await pool.execute("INSERT INTO report (id, generated_at, document) VALUES ($1, $2, $3)", *values)
    return report.report_id


@pytest.fixture
def url(migrated_url: Callable[..., str]) -> str:
    return migrated_url("analyst")


@pytest.fixture
def lost() -> list[None]:
    return []


@pytest.fixture
async def archive(url: str, lost: list[None]) -> AsyncIterator[ReportStore]:
    async with open_report_store(url, LIMITS, lambda: lost.append(None), asyncio.Event()) as archive:
        yield archive


async def _listed(client: Client, **query: Any) -> dict[str, Any]:
    response = await client.get("/analyze/reports", params=query)
    assert response.status == 200, await response.text()
    assert response.headers["Cache-Control"] == "no-store"
    page: dict[str, Any] = await response.json()
    return page


async def _stored(client: Client, count: int) -> dict[str, Any]:
    """The list, once it is so long: it is written behind the answer."""
    async with asyncio.timeout(10):
        while len((page := await _listed(client))["reports"]) < count:
            await asyncio.sleep(0)
    return page


# ---- the archive


async def test_kept_report__is_found_whole(archive: ReportStore) -> None:
    report = _report()
    archive.keep(report)
    archive.keep(report)  # the same again is the same
    await archive.drain()
    assert await archive.get(report.report_id) == report
    assert [line.report_id for line in await archive.page(None, 10)] == [report.report_id]


async def test_pages__go_back_in_time_without_gaps(archive: ReportStore) -> None:
    kept = [_report() for _ in range(7)]
    for report in kept:
        archive.keep(report)
    await archive.drain()
    seen: list[str] = []
    while page := await archive.page(seen[-1] if seen else None, 3):
        seen += [line.report_id for line in page]
    assert seen == [report.report_id for report in reversed(kept)]


async def test_old_reports__are_deleted_at_the_start(url: str) -> None:
    old, new = _report(NOW - timedelta(days=31)), _report(NOW - timedelta(days=29))
    async with open_report_store(url, LIMITS, lambda: None, asyncio.Event()) as archive:
        archive.keep(old)
        archive.keep(new)
        await archive.drain()
    async with open_report_store(url, LIMITS, lambda: None, asyncio.Event()) as archive, asyncio.timeout(10):
        while await archive.get(old.report_id):
            await asyncio.sleep(0)
        assert await archive.get(new.report_id) == new


async def test_end__stores_what_was_kept(url: str) -> None:
    report = _report()
    async with open_report_store(url, LIMITS, lambda: None, asyncio.Event()) as archive:
        archive.keep(report)
    async with create_pool(url, schema="analyst", application="test") as pool:
        assert await pool.fetchval("SELECT count(*) FROM report") == 1


async def test_more_than_can_wait__are_counted_as_lost(archive: ReportStore, lost: list[None]) -> None:
    for _ in range(300):
        archive.keep(_report())
    assert len(lost) == 300 - 256


async def test_server_absent__loses_reports_and_says_so(
    own_postgres: Callable[..., Postgres], lost: list[None]
) -> None:
    server = own_postgres()
    server.stop()
    async with open_report_store(server.url("postgres"), LIMITS, lambda: lost.append(None), asyncio.Event()) as archive:
        archive.keep(_report())
        await archive.drain()
        assert len(lost) == 1
        assert await archive.state() == "degraded"
        with pytest.raises(ReportStoreUnavailable):
            await archive.page(None, 1)


async def test_server_that_ceased_to_take_writes__is_left(
    url: str, lost: list[None], demoted: Callable[[str], AbstractContextManager[str]]
) -> None:
    report = _report()
    async with AsyncExitStack() as opened:
        with demoted(url) as old:
            archiving = open_report_store(old, LIMITS, lambda: lost.append(None), asyncio.Event())
            archive = await opened.enter_async_context(archiving)
            archive.keep(_report())
            await archive.drain()
        archive.keep(report)
        await archive.drain()
        assert len(lost) == 1
        assert await archive.get(report.report_id) == report


def test_migrating_without_a_database__names_the_variable() -> None:
    with pytest.raises(StartError, match="DATABASE_URL"):
        run_migrations(AnalystSettings())


def test_migrating_twice__is_fine(database_url: str) -> None:
    for _ in range(2):
        run_migrations(AnalystSettings(database_url=SecretStr(database_url)))


# ---- over HTTP


async def test_reports__are_listed_and_read_as_they_were_made(open_client: OpenClient, url: str) -> None:
    client = await open_client(DATABASE_URL=url)
    answers = [await client.post("/analyze/performance", json={"window": w}) for w in ("5m", "1h", "1h", "6h")]
    made = {(await answer.json())["report_id"]: await answer.json() for answer in answers}
    page = await _stored(client, 3)
    assert [line["window"] for line in page["reports"]] == ["6h", "1h", "5m"]
    assert page["cursor"] is None
    for line in page["reports"]:
        read = await (await client.get(f"/analyze/reports/{line['report_id']}")).json()
        assert read | {"cache": ""} == made[line["report_id"]] | {"cache": ""}
    first = await _listed(client, limit=2)
    rest = await _listed(client, limit=2, cursor=first["cursor"])
    assert [line["window"] for line in first["reports"] + rest["reports"]] == ["6h", "1h", "5m"]
    assert rest["cursor"] is None
    markdown = await client.get(f"/analyze/reports/{line['report_id']}", headers={"Accept": "text/markdown"})
    assert (await markdown.text()).startswith("# Performance")


async def test_rules_about_absolute_times__are_not_among_past_reports(open_client: OpenClient, url: str) -> None:
    client = await open_client(DATABASE_URL=url)
    times = {"start": "2026-01-01T12:00:00Z", "end": "2026-01-01T13:00:00Z"}
    assert (await client.post("/analyze/performance", json=times)).status == 200
    await client.post("/analyze/performance", json={"window": "5m"})
    page = await _stored(client, 1)  # they are stored in the order in which they were made
    assert [line["window"] for line in page["reports"]] == ["5m"]


async def test_reports_of_another_version__are_listed_among_ours_and_answered_404_by_name(
    open_client: OpenClient, url: str
) -> None:
    client = await open_client(DATABASE_URL=url)
    await client.post("/analyze/performance", json={})
    ours = (await _stored(client, 1))["reports"][0]["report_id"]
    worded = await _stored_by_another_version(url, source="oracle", fallback_reason="eclipse", status="grand")
    empty = await _stored_by_another_version(url)
    seen: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while len(seen) < 3:
        page = await _listed(client, limit=1, **cursor)
        seen += page["reports"]
        cursor = {"cursor": page["cursor"]}
    assert [line["report_id"] for line in seen] == [empty, worded, ours]
    assert page["cursor"] is None
    assert [line["status"] for line in seen] == ["unknown", "grand", "critical"]
    assert (seen[1]["source"], seen[1]["fallback_reason"]) == ("oracle", "eclipse")
    for report_id in (worded, empty):
        answer = await client.get(f"/analyze/reports/{report_id}")
        assert answer.status == 404
        assert "another version" in (await answer.json(content_type=None))["detail"]


async def test_unknown_report__is_404_and_a_wrong_id_422(open_client: OpenClient, url: str) -> None:
    client = await open_client(DATABASE_URL=url)
    assert (await client.get(f"/analyze/reports/{uuid7()}")).status == 404
    assert (await client.get("/analyze/reports/none")).status == 422
    assert (await client.get("/analyze/reports", params={"limit": "1000"})).status == 422


async def test_no_database__is_503_that_names_the_variable(open_client: OpenClient) -> None:
    client = await open_client()
    response = await client.get("/analyze/reports")
    assert response.status == 503
    assert "DATABASE_URL" in (await response.json(content_type=None))["detail"]


async def test_database_absent__reports_are_answered_all_the_same(
    open_client: OpenClient, own_postgres: Callable[..., Postgres]
) -> None:
    server = own_postgres()
    server.stop()
    client = await open_client(DATABASE_URL=server.url("postgres"))
    assert (await client.post("/analyze/performance", json={})).status == 200
    assert (await client.get("/analyze/reports")).status == 503


async def test_database_hung__reports_are_answered_at_once(
    open_client: OpenClient, own_postgres: Callable[..., Postgres]
) -> None:
    server = own_postgres()
    await asyncio.to_thread(migrate, server.url("postgres"), package="analyst", schema="analyst")
    client = await open_client(DATABASE_URL=server.url("postgres"), ANALYST_DATABASE_TIMEOUT_S="0.5")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            assert (await client.post("/analyze/performance", json={})).status == 200
            await client.close()
    finally:
        os.kill(server.process.pid, signal.SIGCONT)

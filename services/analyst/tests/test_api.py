import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from fake_gemini import GOOD
from prometheus_client import generate_latest
from redis.asyncio import Redis

from analyst.llm.client import Budget
from analyst.report.models import Report
from analyst.report.selection import Offer, Selection, parse_selection
from analyst.service import LLMSelector, SelectionFailed
from common.contracts.aggregates import DriftReport
from common.service import Service
from launcher.valkey import Valkey

PATH = "/analyze/performance"

Client = TestClient[Any, Any]
OpenClient = Callable[..., Awaitable[Client]]
CreateService = Callable[..., Service]


async def _select(offer: Offer, _budget: Budget) -> Selection:
    return parse_selection(GOOD, offer)


async def _fail(_offer: Offer, _budget: Budget) -> Selection:
    raise SelectionFailed("upstream")


@pytest.fixture
async def redis(redis_settings: dict[str, Any]) -> AsyncIterator[Redis]:
    async with Redis(**redis_settings, decode_responses=True) as redis:
        yield redis


@pytest.fixture
async def client(open_client: OpenClient) -> Client:
    return await open_client()


async def _ask(client: Client, **body: Any) -> ClientResponse:
    return await client.post(PATH, json=body)


async def _report(response: ClientResponse) -> Report:
    assert response.status == 200, await response.text()
    return Report.model_validate_json(await response.read())


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 403), ("0.0.0.0", 200)])
async def test_page_whose_name_was_made_to_lead_here__drops_no_reports(
    host: str, status: int, open_client: OpenClient
) -> None:
    client = await open_client(ANALYST_HOST=host)
    assert (await client.delete("/analyze/cache", headers={"Host": "rebound.example:8003"})).status == status
    assert (await client.delete("/analyze/cache")).status == 200


# ---- reports


async def test_first_report__is_a_miss_and_the_next_a_hit(client: Client, metrics: Any) -> None:
    first, second = await _ask(client, window="1h"), await _ask(client, window="1h")
    assert [response.headers["X-Cache"] for response in (first, second)] == ["MISS", "HIT"]
    assert first.headers["Age"] == "0"
    assert int(second.headers["Age"]) < 60
    made, kept = await _report(first), await _report(second)
    assert (made.cache, kept.cache) == ("miss", "hit")
    assert kept == made.model_copy(update={"cache": "hit"})
    assert (made.source, made.fallback_reason, made.status) == ("rules", "no_key", "critical")
    assert len(metrics.requests) == 1


async def test_drift__is_told_in_the_report_with_its_reference(
    client: Client, metrics: Any, make_drift: Callable[..., DriftReport]
) -> None:
    metrics.drift = make_drift(length=0.4)
    report = await _report(await _ask(client, window="1h"))
    assert report.windows.drift_reference == metrics.drift.reference
    assert any("the length drift is 0.4." in finding.detail for finding in report.findings)
    assert 0.4 in [figure.value for figure in report.figures if figure.metric == "drift.length"]
    assert metrics.drift_requests == [{"window": "1h", "reference": "24h"}]


@pytest.mark.parametrize("status", [500, 503])
async def test_drift_that_fails__costs_only_its_check_and_is_said(
    create_analyst_service: CreateService, free_port: Callable[[], int], metrics: Any, status: int
) -> None:
    metrics.drift_status = status
    service = create_analyst_service()
    async with TestClient(TestServer(service.app, host="127.0.0.1", port=free_port())) as client:
        report = await _report(await _ask(client))
    assert (report.status, report.windows.drift_reference) == ("critical", None)
    assert "Drift is unavailable, so it was not checked." in report.limitations
    assert "sluice_analyst_reports_without_drift_total 1.0" in generate_latest(service.registry).decode().splitlines()


async def test_no_window__means_the_last_hour(client: Client, metrics: Any) -> None:
    assert (await _report(await _ask(client))).windows.name == "1h"
    assert metrics.requests[0]["window"] == "1h"
    assert (await _ask(client, window="1h")).headers["X-Cache"] == "HIT"


async def test_absolute_times__are_a_window_too(client: Client, metrics: Any) -> None:
    times = {"start": "2026-01-01T12:00:00Z", "end": "2026-01-01T13:05:00Z"}
    report = await _report(await _ask(client, **times))
    assert report.windows.name is None
    assert {name: metrics.requests[0][name] for name in times} == times


async def test_fifty_requests_at_once__fetch_once(client: Client, metrics: Any) -> None:
    metrics.gate.clear()
    asked = [asyncio.create_task(_ask(client, window="6h")) for _ in range(50)]
    await metrics.asked.wait()
    metrics.gate.set()
    reports = {(await _report(response)).report_id for response in await asyncio.gather(*asked)}
    assert len(reports) == 1
    assert len(metrics.requests) == 1


async def test_two_replicas__fetch_once(open_client: OpenClient, metrics: Any) -> None:
    clients = [await open_client(), await open_client()]
    metrics.gate.clear()
    asked = [asyncio.create_task(_ask(client, window="6h")) for client in clients for _ in range(10)]
    await metrics.asked.wait()
    metrics.gate.set()
    reports = {(await _report(response)).report_id for response in await asyncio.gather(*asked)}
    assert len(reports) == 1
    assert len(metrics.requests) == 1


async def test_first_client_disconnects__the_others_are_served(client: Client, metrics: Any) -> None:
    metrics.gate.clear()
    asked = [asyncio.create_task(_ask(client, window="6h")) for _ in range(10)]
    await metrics.asked.wait()
    asked[0].cancel()
    metrics.gate.set()
    responses = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(responses[0], asyncio.CancelledError)
    assert all(isinstance(response, ClientResponse) and response.status == 200 for response in responses[1:])
    assert len(metrics.requests) == 1


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/markdown", "text/markdown"),
        ("text/markdown, application/json;q=0.5", "text/markdown"),
        ("application/json, text/markdown;q=0.5", "application/json"),
        ("text/markdown;q=0", "application/json"),
        ("text/markdown;q=0.1, */*", "application/json"),
        ("text/markdown;q=nonsense", "application/json"),
        ("text/markdown, application/json", "text/markdown"),
        ("*/*", "application/json"),
        ("", "application/json"),
    ],
)
async def test_markdown__for_who_asks_for_it(client: Client, accept: str, content_type: str) -> None:
    response = await client.post(PATH, json={}, headers={"Accept": accept})
    assert response.content_type == content_type
    assert response.headers["Vary"] == "Accept"
    text = await response.text()
    assert text.startswith("# Performance: critical") == (content_type == "text/markdown")


@pytest.mark.parametrize(
    "body",
    [
        {"window": "30d"},
        {"window": "61m"},
        {"windows": "1h"},
        {"window": "1h", "start": "2026-01-01T12:00:00Z", "end": "2026-01-01T13:00:00Z"},
        {"start": "2026-01-01T12:00:00Z"},
        {"start": "2026-01-01T12:00:00Z", "end": "2026-01-01T13:01:00Z"},
        {"start": "2026-01-01T12:00:00.5Z", "end": "2026-01-01T13:00:00Z"},
        {"start": "2026-01-01T12:00:00", "end": "2026-01-01T13:00:00"},
        {"start": "2026-01-01T13:00:00Z", "end": "2026-01-01T12:00:00Z"},
        {"start": "2026-01-01T12:00:00Z", "end": "2026-01-08T12:05:00Z"},
        {"start": "2999-01-01T12:00:00Z", "end": "2999-01-01T13:00:00Z"},
        {"require_ai": "yes"},
    ],
)
async def test_other_windows__are_refused_before_anything_is_asked(
    client: Client, metrics: Any, body: dict[str, Any]
) -> None:
    response = await _ask(client, **body)
    assert response.status == 422
    assert (await response.json(content_type="application/problem+json"))["errors"]
    assert metrics.requests == []


@pytest.mark.parametrize("end", ["1999-12-31T23:55:00Z", "0001-01-01T00:05:00+14:00", "0001-01-01T00:05:00-14:00"])
async def test_times_that_the_metrics_do_not_know__are_named(client: Client, metrics: Any, end: str) -> None:
    for body, fields in (
        ({"start": end.replace("05:00", "00:00").replace("55:00", "50:00"), "end": end}, {"start", "end"}),
        ({"start": end, "end": "2000-01-01T00:00:00Z"}, {"start"}),
    ):
        response = await _ask(client, **body)
        assert response.status == 422
        errors = (await response.json(content_type="application/problem+json"))["errors"]
        assert {error["field"] for error in errors} == fields
    assert metrics.requests == []


async def test_end_of_this_moment__is_not_the_future(client: Client) -> None:
    end = datetime.now(UTC).replace(second=0, microsecond=0)
    end -= timedelta(minutes=end.minute % 5)
    start = end - timedelta(minutes=5)
    assert (await _ask(client, start=start.isoformat(), end=end.isoformat())).status == 200


# ---- with and without a model


async def test_ai_required_without_a_key__is_503_that_says_so(client: Client, metrics: Any) -> None:
    response = await _ask(client, require_ai=True)
    assert response.status == 503
    assert "GEMINI_API_KEY" in (await response.json(content_type="application/problem+json"))["detail"]
    assert metrics.requests == []


async def test_model__writes_and_code_fills_the_figures(open_client: OpenClient) -> None:
    client = await open_client(selector=LLMSelector("some-model", _select))
    report = await _report(await _ask(client, require_ai=True))
    assert (report.source, report.model) == ("ai", "some-model")
    assert report.interpretation == "The number of requests is 36,000."


async def test_model_that_fails__is_rules_or_503_for_who_requires_ai(open_client: OpenClient) -> None:
    client = await open_client(selector=LLMSelector("some-model", _fail))
    refused = await _ask(client, require_ai=True)
    assert refused.status == 503
    assert refused.headers["Retry-After"] == "5"
    assert (await _report(await _ask(client))).fallback_reason == "upstream"


# ---- what is down


@pytest.mark.parametrize(("status", "answer"), [(503, 503), (500, 502)])
async def test_metrics_service_fails__is_a_problem_with_retry_after(
    client: Client, metrics: Any, status: int, answer: int
) -> None:
    metrics.status = status
    for _ in range(3):
        response = await _ask(client)
        assert response.status == answer
        assert response.headers["Retry-After"] == "5"
    assert len(metrics.requests) == 1  # the failure is remembered for seconds


async def test_metrics_service_fails__a_kept_report_is_served_stale(
    open_client: OpenClient, metrics: Any, redis: Redis
) -> None:
    client = await open_client()
    made = await _report(await _ask(client))
    (entry,) = [name async for name in redis.scan_iter("*:entry")]
    await redis.hset(entry, mapping={"fresh_until_ms": 0, "serve_until_ms": 0, "stored_ms": 0})
    metrics.status = 503
    response = await _ask(client)
    assert response.headers["X-Cache"] == "STALE"
    assert int(response.headers["Age"]) > 1_000_000
    assert (await _report(response)).report_id == made.report_id


async def test_report_not_ready_at_the_clients_deadline__is_504(client: Client, metrics: Any) -> None:
    metrics.gate.clear()
    response = await client.post(PATH, json={}, headers={"X-Request-Timeout-Ms": "50"})
    assert response.status == 504
    metrics.gate.set()
    assert (await _ask(client)).status == 200
    assert len(metrics.requests) == 1


async def test_redis_absent__answers_by_rules_and_says_so(
    open_client: OpenClient, own_valkey: Callable[..., Valkey], metrics: Any
) -> None:
    server = own_valkey()
    server.stop()
    client = await open_client(server, LLMSelector("some-model", _select))
    for _ in range(2):
        response = await _ask(client)
        assert response.headers["X-Cache"] == "MISS"
        report = await _report(response)
        assert (report.source, report.fallback_reason) == ("rules", "cache_unavailable")
    assert (await client.delete("/analyze/cache")).status == 503


async def test_redis_hung__answers_by_rules_within_its_timeout(
    open_client: OpenClient, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    spent: list[Offer] = []

    async def select(offer: Offer, _budget: Budget) -> Selection:
        spent.append(offer)
        return parse_selection(GOOD, offer)

    client = await open_client(server, LLMSelector("some-model", select), ANALYST_REDIS_TIMEOUT_S="0.2")
    assert server.process is not None
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            report = await _report(await _ask(client))
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert (report.source, report.fallback_reason, spent) == ("rules", "cache_unavailable", [])
    async with asyncio.timeout(30):  # it would have written, and does once the server is back in time
        while (await _report(await _ask(client))).source != "ai":
            pass


# ---- the cache


async def test_delete__drops_reports_and_says_how_many(client: Client, metrics: Any) -> None:
    for window in ("5m", "1h", "7d"):
        await _ask(client, window=window)
    response = await client.delete("/analyze/cache")
    assert (response.status, await response.json()) == (200, {"deleted": 3})
    assert (await _ask(client, window="1h")).headers["X-Cache"] == "MISS"


async def test_delete_in_flight__what_was_being_made_is_not_kept(client: Client, metrics: Any) -> None:
    metrics.gate.clear()
    before = asyncio.create_task(_ask(client))
    await metrics.asked.wait()
    assert await (await client.delete("/analyze/cache")).json() == {"deleted": 0}
    metrics.gate.set()
    old = await _report(await before)
    new = await _report(await _ask(client))
    assert new.report_id != old.report_id


# ---- what operators see


async def test_states__name_what_is_degraded_and_stay_green(
    create_analyst_service: CreateService,
    metrics: Any,
    own_valkey: Callable[..., Valkey],
    free_port: Callable[[], int],
) -> None:
    server = own_valkey()
    service = create_analyst_service(server)
    async with TestServer(service.app, host="127.0.0.1", port=free_port()):
        async with asyncio.timeout(30):  # a check that takes longer than its second, on a busy machine, is degraded
            while await service.readiness.report() != ("ok", {"redis": "ok", "metrics": "ok", "model": "ok"}):
                pass
        server.stop()
        metrics.status = 503
        assert await service.readiness.report() == (
            "degraded",
            {"redis": "degraded", "metrics": "degraded", "model": "ok"},
        )


async def test_counters__tell_cache_states_fallbacks_and_waiters(
    create_analyst_service: CreateService, free_port: Callable[[], int]
) -> None:
    service = create_analyst_service()
    async with TestClient(TestServer(service.app, host="127.0.0.1", port=free_port())) as client:
        for _ in range(3):
            await _ask(client)
    text = generate_latest(service.registry).decode()
    for line in (
        'sluice_analyst_reports_total{cache="miss"} 1.0',
        'sluice_analyst_reports_total{cache="hit"} 2.0',
        'sluice_analyst_reports_made_total{source="rules"} 1.0',
        'sluice_analyst_fallbacks_total{reason="no_key"} 1.0',
        "sluice_analyst_flight_waiters 0.0",
        'sluice_analyst_report_seconds_count{cache="hit"} 2.0',
    ):
        assert line in text.splitlines()


async def test_specification__describes_both_routes(client: Client) -> None:
    document = json.loads(await (await client.get("/openapi.json")).text())
    content = document["paths"][PATH]["post"]["responses"]["200"]["content"]
    assert content.keys() == {"application/json", "text/markdown"}
    assert "delete" in document["paths"]["/analyze/cache"]

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from analyst.cache.single_flight import FlightFailed
from analyst.metrics_client import open_metrics_client
from analyst.service import MetricsSnapshot
from common.contracts.aggregates import Aggregate, AggregateRequest
from common.http.context import RequestContext

REQUEST = AggregateRequest(window="1h")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def _context(remaining_s: float = 10.0) -> RequestContext:
    return RequestContext("the-request", None, None, time.monotonic() + remaining_s)


async def test_aggregate_and_drift__are_read_in_one_call_each(metrics: Any, troubled: Aggregate) -> None:
    async with open_metrics_client(metrics.url, 5) as client:
        assert await client.measured(REQUEST, _context()) == MetricsSnapshot(troubled, metrics.drift)
    assert [request["window"] for request in metrics.requests] == ["1h"]
    assert metrics.drift_requests == [{"window": "1h", "reference": "24h"}]


async def test_drift__is_asked_for_while_the_aggregate_is_awaited(metrics: Any) -> None:
    metrics.gate.clear()
    async with open_metrics_client(metrics.url, 5) as client, asyncio.timeout(5):
        measuring = asyncio.create_task(client.measured(REQUEST, _context()))
        await metrics.drift_asked.wait()
        metrics.gate.set()
        assert (await measuring).drift == metrics.drift


@pytest.mark.parametrize(("status", "body"), [(503, None), (500, None), (404, None), (200, b"{}"), (200, b"<html>")])
async def test_drift_that_fails__is_missing_and_logged_once(metrics: Any, status: int, body: bytes | None) -> None:
    metrics.drift_status, metrics.drift_body = status, body
    async with open_metrics_client(metrics.url, 5) as client:
        with capture_logs() as logs:
            for _ in range(3):
                assert await client.measured(REQUEST, _context()) == MetricsSnapshot(metrics.aggregate, None)
        metrics.drift_status, metrics.drift_body = 200, None
        assert (await client.measured(REQUEST, _context())).drift == metrics.drift
    assert [entry["event"] for entry in logs] == ["drift not read: reports are made without"]


async def test_drift_that_hangs__is_given_up_in_time(metrics: Any) -> None:
    metrics.drift_gate.clear()
    async with open_metrics_client(metrics.url, 3) as client, asyncio.timeout(30):
        assert await client.measured(REQUEST, _context()) == MetricsSnapshot(metrics.aggregate, None)


async def test_aggregate_that_fails__waits_for_no_drift(metrics: Any) -> None:
    metrics.status = 500
    metrics.drift_gate.clear()
    async with open_metrics_client(metrics.url, 60) as client, asyncio.timeout(30):
        with pytest.raises(FlightFailed, match="metrics_broken"):
            await client.measured(REQUEST, _context())


@pytest.mark.parametrize(
    ("request_", "query"),
    [
        (AggregateRequest(), {"window": "1h", "reference": "24h"}),
        (AggregateRequest(window="24h"), {"window": "24h", "reference": "24h"}),
        (AggregateRequest(window="7d"), {"window": "7d", "reference": "7d"}),
        (AggregateRequest(start=NOON, end=NOON + timedelta(days=1)), {"reference": "24h"}),
        (AggregateRequest(start=NOON, end=NOON + timedelta(days=2)), {"reference": "7d"}),
    ],
)
async def test_drift__is_of_the_same_time_against_at_least_as_long(
    metrics: Any, request_: AggregateRequest, query: dict[str, str]
) -> None:
    async with open_metrics_client(metrics.url, 5) as client:
        await client.measured(request_, _context())
    (asked,) = metrics.drift_requests
    times = {name: datetime.fromisoformat(asked.pop(name)) for name in ("start", "end") if name in asked}
    assert asked == query
    assert times == ({"start": request_.start, "end": request_.end} if request_.start else {})


async def test_callers_deadline__is_not_the_flights(metrics: Any) -> None:
    async with open_metrics_client(metrics.url, 500) as client:
        await client.measured(REQUEST, _context(remaining_s=-1))
    assert 400_000 < int(metrics.headers[0]["X-Request-Timeout-Ms"]) <= 500_000
    assert metrics.headers[0]["X-Request-ID"] == "the-request"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "metrics_unavailable"),
        (504, "metrics_unavailable"),
        (429, "metrics_unavailable"),
        (500, "metrics_broken"),
        (404, "metrics_broken"),
    ],
)
async def test_refusal__says_whether_waiting_helps(metrics: Any, status: int, code: str) -> None:
    metrics.status = status
    async with open_metrics_client(metrics.url, 5) as client:
        with pytest.raises(FlightFailed, match=code):
            await client.measured(REQUEST, _context())
        assert await client.state() == "degraded"


@pytest.mark.parametrize("body", [b"{}", b"<html>", b"\xff"])
async def test_answer_outside_the_contract__is_broken(metrics: Any, body: bytes) -> None:
    metrics.body = body
    async with open_metrics_client(metrics.url, 5) as client:
        with pytest.raises(FlightFailed, match="metrics_broken"):
            await client.measured(REQUEST, _context())


async def test_nobody_listens__is_unavailable(free_port: Any) -> None:
    async with open_metrics_client(f"http://127.0.0.1:{free_port()}", 5) as client:
        with pytest.raises(FlightFailed, match="metrics_unavailable"):
            await client.measured(REQUEST, _context())
        assert await client.state() == "degraded"


async def test_service_that_hangs__is_given_up_in_time(metrics: Any) -> None:
    metrics.gate.clear()
    async with open_metrics_client(metrics.url, 0.05) as client:
        with pytest.raises(FlightFailed, match="metrics_unavailable"):
            await client.measured(REQUEST, _context())


async def test_state__is_ok_while_the_service_answers(metrics: Any) -> None:
    async with open_metrics_client(metrics.url, 5) as client:
        assert await client.state() == "ok"

import time
from typing import Any

import pytest

from analyst.flight import FlightFailed
from analyst.metrics_client import open_metrics_client
from common.contracts import Aggregate, AggregateRequest
from common.requests import RequestContext

REQUEST = AggregateRequest(window="1h")


def _context(remaining_s: float = 10.0) -> RequestContext:
    return RequestContext("the-request", None, None, time.monotonic() + remaining_s)


async def test_aggregate__is_read_in_one_call(metrics: Any, troubled: Aggregate) -> None:
    async with open_metrics_client(metrics.url, 5) as client:
        assert await client.aggregated(REQUEST, _context()) == troubled
    assert [request["window"] for request in metrics.requests] == ["1h"]


async def test_callers_deadline__is_not_the_flights(metrics: Any) -> None:
    async with open_metrics_client(metrics.url, 5) as client:
        await client.aggregated(REQUEST, _context(remaining_s=-1))
    assert int(metrics.headers[0]["X-Request-Timeout-Ms"]) > 4000
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
            await client.aggregated(REQUEST, _context())
        assert await client.state() == "degraded"


@pytest.mark.parametrize("body", [b"{}", b"<html>", b"\xff"])
async def test_answer_outside_the_contract__is_broken(metrics: Any, body: bytes) -> None:
    metrics.body = body
    async with open_metrics_client(metrics.url, 5) as client:
        with pytest.raises(FlightFailed, match="metrics_broken"):
            await client.aggregated(REQUEST, _context())


async def test_nobody_listens__is_unavailable(free_port: Any) -> None:
    async with open_metrics_client(f"http://127.0.0.1:{free_port()}", 5) as client:
        with pytest.raises(FlightFailed, match="metrics_unavailable"):
            await client.aggregated(REQUEST, _context())
        assert await client.state() == "degraded"


async def test_service_that_hangs__is_given_up_in_time(metrics: Any) -> None:
    metrics.gate.clear()
    async with open_metrics_client(metrics.url, 0.05) as client:
        with pytest.raises(FlightFailed, match="metrics_unavailable"):
            await client.aggregated(REQUEST, _context())


async def test_state__is_ok_while_the_service_answers(metrics: Any) -> None:
    async with open_metrics_client(metrics.url, 5) as client:
        assert await client.state() == "ok"

"""Aggregates to report on, and a metrics service that returns them. The stores come from the root conftest."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from analyst.app import create_service
from analyst.service import LLMSelector
from analyst.settings import AnalystSettings
from common.contracts.aggregates import Aggregate, Confidence, Drift, DriftReport, Latency, Summary
from common.contracts.thresholds import ThresholdRule, ThresholdState
from common.contracts.windows import TimeRange
from common.runtime.settings import load
from common.service import Service
from launcher.valkey import Valkey

MakeAggregate = Callable[..., Aggregate]
Client = TestClient[Any, Any]


def _summary(start: datetime, **changes: Any) -> dict[str, Any]:
    latency = {"n": 36_000, "mean": 90.0, "p50": 40.0, "p90": 200.0, "p95": 280.0, "p99": 600.0, "max": 900.0}
    values: dict[str, Any] = {
        "range": TimeRange(start=start, end=start + timedelta(hours=1)),
        "requests": 36_000,
        "predictions": 35_800,
        "rate_limited": 0,
        "errors": {},
        "throughput_per_s": 10.0,
        "error_rate": 0.0,
        "limited_rate": 0.0,
        "labels": [],
    }
    precision = {"method": changes.pop("method", "exact"), "relative_error": changes.pop("relative_error", 0.0)}
    latency |= {name: changes.pop(name) for name in list(changes) if name in latency}
    confidence = changes.pop("confidence", 0.9)
    values |= changes
    values["latency_ms"] = Latency(**latency, **precision)
    values["confidence"] = Confidence(mean=confidence, histogram=[0] * 9 + [values["predictions"]])
    return values


@pytest.fixture(scope="session")
def make_aggregate() -> MakeAggregate:
    """Call it with what differs from a calm hour, `previous` for the hour before, `thresholds` as rule states."""

    def make(
        previous: dict[str, Any] | None = None, thresholds: tuple[ThresholdState, ...] = (), **now: Any
    ) -> Aggregate:
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        lag_s = now.pop("lag_s", 0.0)
        before = Summary(**_summary(noon - timedelta(hours=1), **(previous or {})))
        return Aggregate(**_summary(noon, **now), previous=before, thresholds=list(thresholds), lag_s=lag_s)

    return make


@pytest.fixture
def troubled(make_aggregate: MakeAggregate) -> Aggregate:
    """Slower and less than the hour before, with fewer errors, one limit breached and one kept."""
    slow = ThresholdRule(name="p95-slow", metric="latency_ms.p95", above=300, severity="critical")
    errors = ThresholdRule(name="errors", metric="error_rate", above=0.05, window="15m")
    return make_aggregate(
        requests=36_000,
        throughput_per_s=10.0,
        error_rate=0.004,
        errors={"timeout": 120, "unavailable": 24},
        p95=412.0,
        p99=900.0,
        previous={"requests": 50_400, "throughput_per_s": 14.0, "error_rate": 0.006, "errors": {"timeout": 300}},
        thresholds=(
            ThresholdState(rule=slow, current=420.0, breached=True),
            ThresholdState(rule=errors, current=0.004, breached=False),
        ),
    )


@pytest.fixture(scope="session")
def make_drift() -> Callable[..., DriftReport]:
    """Call it with how far `labels`, `confidence` and `length` moved, and with `n` for how many predictions tell."""

    def make(n: int = 36_000, **moved: float) -> DriftReport:
        noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
        drifts = {
            name: Drift(n=n, reference_n=n, psi=value + 0.01, noise=0.01, value=value, drifted=value >= 0.1)
            for name, value in ({"labels": 0.0, "confidence": 0.0, "length": 0.0} | moved).items()
        }
        return DriftReport(
            range=TimeRange(start=noon, end=noon + timedelta(hours=1)),
            reference=TimeRange(start=noon - timedelta(hours=24), end=noon),
            lag_s=0.0,
            **drifts,
        )

    return make


@dataclass
class StubMetrics:
    """The metrics service as the analyst sees it; counts calls, waits for `gate`, and fails on demand."""

    aggregate: Aggregate
    drift: DriftReport
    drift_status: int = 200
    drift_body: bytes | None = None
    drift_gate: asyncio.Event = field(default_factory=asyncio.Event)
    drift_asked: asyncio.Event = field(default_factory=asyncio.Event)
    drift_requests: list[dict[str, str]] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/metrics/aggregated", self._aggregated)
        app.router.add_get("/metrics/drift", self._drift)
        app.router.add_get("/metrics/count", self._count)
        return app

    async def _aggregated(self, request: web.Request) -> web.Response:
        self.requests.append(await request.json())
        self.headers.append(request.headers)
        self.asked.set()
        await self.gate.wait()
        body = self.aggregate.model_dump_json().encode() if self.body is None else self.body
        return web.Response(status=self.status, body=body, content_type="application/json")

    async def _drift(self, request: web.Request) -> web.Response:
        self.drift_requests.append(dict(request.query))
        self.drift_asked.set()
        await self.drift_gate.wait()
        body = self.drift.model_dump_json().encode() if self.drift_body is None else self.drift_body
        return web.Response(status=self.drift_status, body=body, content_type="application/json")

    async def _count(self, _request: web.Request) -> web.Response:
        return web.json_response({"count": len(self.requests)}, status=self.status)


@pytest.fixture
async def metrics(
    troubled: Aggregate, make_drift: Callable[..., DriftReport], free_port: Callable[[], int]
) -> AsyncIterator[StubMetrics]:
    """A metrics service on loopback that returns the troubled hour, without drift. Its gates are open."""
    stub = StubMetrics(troubled, make_drift())
    stub.gate.set()
    stub.drift_gate.set()
    async with TestServer(stub.app(), host="127.0.0.1", port=free_port()) as server:
        stub.url = str(server.make_url("")).rstrip("/")
        yield stub
        stub.gate.set()
        stub.drift_gate.set()


@pytest.fixture
def create_analyst_service(metrics: StubMetrics, valkey: Valkey, redis_url: str) -> Callable[..., Service]:
    """Call it, with variables, for an analyst that reads the stub."""

    def create(server: Valkey = valkey, selector: LLMSelector | None = None, **variables: str) -> Service:
        environ = {
            "ANALYST_METRICS_URL": metrics.url,
            "ANALYST_METRICS_TIMEOUT_S": "5",
            "ANALYST_REDIS_TIMEOUT_S": "30",  # a busy machine pauses for seconds
            "REDIS_TIMEOUT_S": "30",
            "ANALYST_LEASE_S": "60",
            "REDIS_HOST": server.host,
            "REDIS_PORT": str(server.port),
            "REDIS_PASSWORD": server.password,
        }
        return create_service(load(AnalystSettings, environ | variables), selector)

    return create


@pytest.fixture
async def open_client(
    create_analyst_service: Callable[..., Service], free_port: Callable[[], int]
) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """Call it, with variables, for a client of one more analyst."""
    async with AsyncExitStack() as stack:

        async def open_one(*arguments: Any, **variables: Any) -> Client:
            service = create_analyst_service(*arguments, **variables)
            server = TestServer(service.app, host="127.0.0.1", port=free_port())
            return await stack.enter_async_context(TestClient(server))

        yield open_one

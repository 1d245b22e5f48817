"""Reports through the four real services: the model receives only measured numbers, and drift is measured."""

import asyncio
import json
import random
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from fake_gemini import GOOD, Script, rest
from redis.asyncio import Redis
from system import System
from true_reports import expected_value

from analyst.report.models import Report
from common.contracts.events import EVENT_FIELD, STREAM, PredictionEvent

StartSystem = Callable[..., System]

MARKER = "markzq"
MALFORMED = GOOD[:20]

JSON = {"Content-Type": "application/json"}
EVERYWHERE: list[tuple[str, str, dict[str, Any]]] = [
    # method, path, and the rest of a request with the marker in one more place
    ("POST", "/predict", {"json": {"text": f"A moving film, {MARKER} {MARKER}!"}}),
    ("POST", "/predict", {"json": {"text": "fine", MARKER: MARKER}}),
    ("POST", "/predict", {"data": f'{{"text": "{MARKER}"'.encode(), "headers": JSON}),
    ("POST", "/predict", {"json": {"text": "fine"}, "headers": {MARKER: MARKER, "User-Agent": MARKER}}),
    ("POST", "/predict", {"json": {"text": "fine"}, "headers": {"traceparent": MARKER, "tracestate": f"{MARKER}=1"}}),
    ("POST", f"/predict?{MARKER}={MARKER}", {"json": {"text": "fine"}, "headers": {"Cookie": f"{MARKER}={MARKER}"}}),
    ("POST", "/predict/batch", {"json": {"texts": [f"{MARKER} one", f"{MARKER} two"]}}),
    ("POST", f"/models/{MARKER}", {"json": {"inputs": MARKER}}),
    ("POST", f"/v2/models/{MARKER}/infer", {"json": {"inputs": [{"name": MARKER, "data": [MARKER]}]}}),
    ("GET", f"/{MARKER}", {}),
    ("GET", f"/metrics/{MARKER}", {}),
    (MARKER.upper(), "/predict", {}),
    ("POST", "/metrics/aggregated", {"json": {"window": "1h", "filters": {"label": MARKER, "model": MARKER}}}),
    ("POST", "/metrics/aggregated", {"json": {"window": "1h", "filters": {"route": MARKER}}}),
    ("GET", f"/metrics/drift?model={MARKER}&route={MARKER}", {}),
    ("POST", "/analyze/performance", {"json": {"window": MARKER}}),
    ("POST", "/analyze/performance", {"json": {"window": "1h", MARKER: MARKER}}),
]


async def test_user_input__is_in_no_request_to_gemini(start_system: StartSystem) -> None:
    script = Script(text=GOOD, texts=[MALFORMED])  # the request for its repair counts too
    async with rest(script) as endpoint:
        system = start_system(GEMINI_API_KEY="none", GEMINI_ENDPOINT=endpoint)
        async with _user(system) as user:
            stored = await _send_everywhere(user)
            await _counted(user, stored)
            for window in ("1h", "5m", "7d"):
                async with user.post("/analyze/performance", json={"window": window}) as response:
                    assert (await response.json())["source"] == "ai", await response.text()
        connection = await system.database()
        try:
            kept = await connection.fetchval("SELECT count(*) FROM metrics.prediction WHERE request_id = $1", MARKER)
        finally:
            await connection.close()
    assert kept == stored > 0  # the marker did reach the data of reports
    assert script.calls == len(script.received) == 4
    for received in script.received:
        assert "p95 latency" in received
        assert MARKER not in received.lower()


async def _send_everywhere(user: aiohttp.ClientSession) -> int:
    """Return the number of texts that were scored, each of which is a stored prediction."""
    scored = 0
    for method, path, rest_ in EVERYWHERE:
        async with user.request(method, path, **rest_) as response:
            await response.read()
            assert response.status != 500
            if path.startswith("/predict") and response.status == 200:
                scored += 2 if path == "/predict/batch" else 1
    return scored


def _user(system: System) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(system.url, headers={"X-Forwarded-For": "198.51.100.9", "X-Request-ID": MARKER})


async def _counted(user: aiohttp.ClientSession, expected: int) -> None:
    async with asyncio.timeout(60):
        while True:
            async with user.get("/metrics/count") as response:
                if response.status == 200 and (await response.json())["count"] >= expected:
                    return
            await asyncio.sleep(0.05)


async def test_drift__is_in_the_report_as_the_metrics_service_measures_it(
    system: System,
) -> None:
    """Uses absolute times, because the reference of `15m` moves every minute."""
    end = time.time() // 300 * 300
    window = {"start": _utc(end - 900), "end": _utc(end)}
    async with _user(system) as user:
        async with user.get("/metrics/count") as response:
            before = (await response.json())["count"]
        await _predict(system, 300, at_s=end - 3 * 3600, label="POSITIVE", score=0.95, characters=40)
        await _predict(system, 300, at_s=end - 1, label="NEGATIVE", score=0.55, characters=4000)
        await _counted(user, before + 600)
        async with user.get("/metrics/drift", params=window) as response:
            drift = await response.json()
        async with user.post("/analyze/performance", json=window) as response:
            report = await response.json()
    assert drift["labels"]["drifted"]
    assert drift["length"]["drifted"]
    shown = {figure["metric"]: figure["value"] for figure in report["figures"]}
    for name in ("labels", "confidence", "length"):
        assert shown[f"drift.{name}"] == pytest.approx(drift[name]["value"], rel=1e-9)
    assert report["windows"]["drift_reference"] == drift["reference"]
    assert any("the label drift is" in finding["detail"] for finding in report["findings"])
    assert not [line for line in report["limitations"] if line.startswith("Drift is")]


async def test_figures_of_a_report__equal_those_of_the_metrics_service(system: System) -> None:
    """Uses absolute times in the past, so that both services count the same predictions."""
    end = (time.time() - 3600) // 300 * 300
    window = {"start": _utc(end - 900), "end": _utc(end)}
    async with _user(system) as user:
        async with user.get("/metrics/count") as response:
            before = (await response.json())["count"]
        chance = random.Random(1)
        for ago_s, count in ((1800, 300), (900, 200)):  # the previous window, and this one
            for outcome, share in (("timeout", 0.1), ("ok", 0.9)):
                for _ in range(10):
                    scored = {"label": "POSITIVE", "score": chance.uniform(0.5, 1)} if outcome == "ok" else {}
                    at_s = end - ago_s + chance.uniform(1, 899)
                    latency_us = round(chance.lognormvariate(10, 1))
                    await _predict(
                        system, round(count * share / 10), at_s=at_s, outcome=outcome, latency_us=latency_us, **scored
                    )
        await _counted(user, before + 450)  # timeouts are not predictions, and were sent earlier
        async with user.post("/metrics/aggregated", json={**window, "group_by": ["route", "outcome"]}) as response:
            document = await response.json()
        async with user.get("/metrics/drift", params=window | {"reference": "24h"}) as response:
            document["drift"] = await response.json()
        async with user.post("/analyze/performance", json=window) as response:
            report = Report.model_validate(await response.json())
    assert document["requests"] == 200
    assert document["previous"]["requests"] == 300
    for figure in report.figures:
        assert figure.value == pytest.approx(expected_value(document, figure), rel=1e-9), figure
    assert {figure.window for figure in report.figures} >= {"current", "previous"}
    assert len(report.figures) > 5


def _utc(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()


async def _predict(system: System, count: int, *, at_s: float, **fields: Any) -> None:
    """Write predictions of time `at_s` to the stream, as inference does."""
    environment = system.service("metrics").environ()
    address: dict[str, Any] = {name: environment[f"REDIS_{name.upper()}"] for name in ("host", "port", "password")}
    usual = {"route": "/predict", "outcome": "ok", "request_id": "r", "model": "m", "revision": "1", "latency_us": 9000}
    at_us = int(at_s * 1e6)
    async with Redis(**address, decode_responses=True) as redis:
        pipeline = redis.pipeline(transaction=False)
        for _ in range(count):
            event = PredictionEvent.model_validate(usual | fields | {"id": str(uuid.uuid4()), "at_us": at_us})
            pipeline.xadd(STREAM, {EVENT_FIELD: json.dumps(event.model_dump(exclude_none=True))})
        await pipeline.execute()

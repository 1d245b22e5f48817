"""The ops port: alive whatever the stores do, red only when the process itself cannot answer."""

import asyncio

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, Counter
from structlog.testing import capture_logs

from common.runtime import readiness
from common.runtime.metrics import create_registry
from common.runtime.readiness import Check, Readiness, State, create_ops_app


def says(state: State) -> Check:
    async def check() -> State:
        return state

    return check


async def hangs() -> State:
    await asyncio.Event().wait()
    raise AssertionError("never")


async def raises() -> State:
    raise ConnectionRefusedError("hunter2")


async def ask(readiness: Readiness, path: str = "/readyz") -> tuple[int, object]:
    async with TestClient(TestServer(create_ops_app(readiness, CollectorRegistry()))) as client:
        async with client.get(path) as response:
            return response.status, await response.json()


@pytest.mark.parametrize(
    ("checks", "code", "status"),
    [
        ({}, 200, "ok"),
        ({"a": "ok", "b": "ok"}, 200, "ok"),
        ({"a": "ok", "b": "degraded"}, 200, "degraded"),
        ({"a": "failed", "b": "degraded"}, 503, "failed"),
    ],
)
async def test_readiness__is_red_only_on_a_failed_check(checks: dict[str, State], code: int, status: str) -> None:
    answer = await ask(Readiness({name: says(state) for name, state in checks.items()}))
    assert answer == (code, {"status": status, "checks": checks})


async def test_hanging_check__is_degraded_within_its_time() -> None:
    async with asyncio.timeout(readiness.CHECK_TIMEOUT_S + 20):
        assert await Readiness({"a": hangs, "b": hangs, "c": says("ok")}).report() == (
            "degraded",
            {"a": "degraded", "b": "degraded", "c": "ok"},
        )


async def test_raising_check__is_degraded_and_named_in_the_log() -> None:
    with capture_logs() as lines:
        assert (await ask(Readiness({"a": raises})))[0] == 200
    assert [(line["event"], line["check"]) for line in lines] == [("readiness check failed", "a")]


async def test_draining__is_red_and_still_alive() -> None:
    readiness = Readiness({"a": says("ok")}, draining=True)
    assert await ask(readiness) == (503, {"status": "failed", "checks": {"a": "ok", "draining": "failed"}})
    assert await ask(readiness, "/livez") == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("accept", "content_type", "ends"),
    [("application/openmetrics-text", "application/openmetrics-text", True), ("*/*", "text/plain", False)],
)
async def test_metrics__are_this_registry_in_the_format_asked_for(accept: str, content_type: str, ends: bool) -> None:
    registry = create_registry()
    Counter("probe_things", "Things.", registry=registry).inc(3)
    async with TestClient(TestServer(create_ops_app(Readiness(), registry))) as client:
        async with client.get("/metrics", headers={"Accept": accept}) as response:
            text = await response.text()
    assert response.headers["Content-Type"].startswith(content_type)
    assert "probe_things_total 3.0" in text
    assert text.endswith("# EOF\n") is ends

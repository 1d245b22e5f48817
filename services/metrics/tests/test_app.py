"""Readiness of the service."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from common.runtime.readiness import Readiness
from launcher.valkey import Valkey
from metrics.api.resources import RESOURCES
from metrics.app import create_service
from metrics.settings import MetricsSettings


def settings(database_url: str, redis: dict[str, Any], **given: Any) -> MetricsSettings:
    where = {f"redis_{name}": redis[name] for name in ("host", "port", "password")}
    return MetricsSettings(database_url=database_url, **where, **given)


async def test_service_before_its_start__is_not_ready() -> None:
    readiness: Readiness = create_service(MetricsSettings(database_url="postgresql://127.0.0.1/x")).readiness
    assert (await readiness.report())[0] == "failed"


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 403), ("localhost", 403), ("0.0.0.0", 200)])
async def test_page_whose_name_was_made_to_lead_here__reads_no_predictions(
    host: str, status: int, metrics_url: str, redis_settings: dict[str, Any]
) -> None:
    service = create_service(settings(metrics_url, redis_settings, metrics_host=host))
    async with TestClient(TestServer(service.app)) as client:
        async with client.get("/metrics/predictions", headers={"Host": "rebound.example:8002"}) as response:
            assert response.status == status
        async with client.get("/metrics/predictions") as response:
            assert response.status == 200


async def test_service_before_its_migrations__is_not_ready(database_url: str, redis_settings: dict[str, Any]) -> None:
    service = create_service(settings(database_url, redis_settings))
    async with TestServer(service.app), asyncio.timeout(30):
        while (state := (await service.readiness.report())[1]["database"]) == "degraded":
            pass  # a busy machine exceeded the check's second
        assert state == "failed"


async def test_service_whose_redis_takes_no_writes__is_degraded(
    metrics_url: str, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    redis = {"host": server.host, "port": server.port, "password": server.password}
    service = create_service(settings(metrics_url, redis))
    async with TestServer(service.app), asyncio.timeout(30):
        while (await service.readiness.report())[1]["redis"] != "ok":
            pass
        server.execute("CONFIG", "SET", "maxmemory", "1")
        while (await service.readiness.report())[0] != "degraded":
            pass


async def test_rules__are_evaluated_while_readers_hold_all_their_connections(
    metrics_url: str, redis_settings: dict[str, Any]
) -> None:
    """Reading is public, and many slow readers must not stop the alerts."""
    service = create_service(settings(metrics_url, redis_settings, metrics_connections=4, metrics_evaluate_s=1))

    def judged() -> float:
        return service.registry.get_sample_value("sluice_metrics_evaluations_total") or 0.0

    async with TestServer(service.app), asyncio.timeout(30), AsyncExitStack() as readers:
        for _ in range(2):
            await readers.enter_async_context(service.app[RESOURCES].rollups.snapshot())
        before = judged()
        while judged() < before + 2:
            await asyncio.sleep(0.01)

"""When the service calls itself ready."""

import asyncio
from typing import Any

from aiohttp.test_utils import TestServer

from common.ops import Readiness
from metrics.app import create_service
from metrics.settings import MetricsSettings


async def test_service_before_its_start__is_not_ready() -> None:
    readiness: Readiness = create_service(MetricsSettings(database_url="postgresql://127.0.0.1/x")).readiness
    assert (await readiness.report())[0] == "failed"


async def test_service_before_its_migrations__is_not_ready(database_url: str, redis_settings: dict[str, Any]) -> None:
    service = create_service(
        MetricsSettings(
            database_url=database_url,
            redis_host=redis_settings["host"],
            redis_port=redis_settings["port"],
            redis_password=redis_settings["password"],
        )
    )
    async with TestServer(service.app), asyncio.timeout(30):
        while (state := (await service.readiness.report())[1]["database"]) == "degraded":
            pass  # a busy machine did not answer within a check's second
        assert state == "failed"

"""A metrics service on loopback that always returns the same hour."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from true_reports import random_aggregate, random_drift


@asynccontextmanager
async def metrics_service() -> AsyncIterator[str]:
    """Yield its URL."""
    chance = random.Random(1)
    aggregate, drift = random_aggregate(chance).model_dump_json(), random_drift(chance).model_dump_json()

    async def aggregated(_request: web.Request) -> web.Response:
        return web.Response(text=aggregate, content_type="application/json")

    async def measured_drift(_request: web.Request) -> web.Response:
        return web.Response(text=drift, content_type="application/json")

    app = web.Application()
    app.router.add_post("/metrics/aggregated", aggregated)
    app.router.add_get("/metrics/drift", measured_drift)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()

"""A user's journey through the whole system, on any kind of store."""

import asyncio
from collections import Counter
from typing import Any

import aiohttp
from system import System

LIMIT, ASKED = 60, 80
TOKEN = {"EDGE_ADMIN_TOKEN": "0" * 48}


async def walk(system: System) -> None:
    """Check exact limits, counts, and a report that is cached and stored. The system must use TOKEN."""
    headers = {"X-Forwarded-For": "198.51.100.7", "Authorization": f"Bearer {TOKEN['EDGE_ADMIN_TOKEN']}"}
    async with aiohttp.ClientSession(system.url, headers=headers) as client, asyncio.timeout(60):

        async def predict() -> int:
            async with client.post("/predict", json={"text": "A thoughtful, moving film."}) as response:
                await response.read()
                return response.status

        statuses = await asyncio.gather(*(predict() for _ in range(ASKED)))
        assert Counter(statuses) == {200: LIMIT, 429: ASKED - LIMIT}
        while (await fetch(client, "/metrics/count"))["count"] < LIMIT:
            await asyncio.sleep(0.1)
        assert await fetch(client, "/metrics/count") == {"count": LIMIT}
        first, cached = [await report(client) for _ in range(2)]
        assert first["report_id"] == cached["report_id"]
        while not (await fetch(client, "/analyze/reports"))["reports"]:
            await asyncio.sleep(0.1)
        await system.healthy()


async def fetch(client: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with client.get(path) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, answer
        return answer


async def report(client: aiohttp.ClientSession) -> dict[str, Any]:
    async with client.post("/analyze/performance", json={"window": "1h"}) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == 200, answer
        return answer

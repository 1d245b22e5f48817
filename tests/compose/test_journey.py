"""User journeys through the published port."""

import asyncio
from typing import Any

import aiohttp
from compose.stack import Stack

POSITIVE = {"text": "A thoughtful, moving film."}


async def counted(session: aiohttp.ClientSession, expected: int) -> None:
    """Wait until the count is `expected`."""
    async with asyncio.timeout(10):
        while await count(session) != expected:
            await asyncio.sleep(0.2)


async def count(session: aiohttp.ClientSession) -> int:
    async with session.get("/metrics/count") as response:
        return int((await response.json())["count"])


def client(stack: Stack, address: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(stack.urls[0], headers={"X-Forwarded-For": address})


async def test_prediction__is_answered_counted_and_reported(stack: Stack) -> None:
    async with client(stack, "198.51.100.1") as session:
        before = await count(session)
        async with session.post("/predict", json=POSITIVE) as response:
            assert (await response.json())["label"] == "POSITIVE"
        await counted(session, before + 1)
        async with session.post("/metrics/aggregated", json={"window": "1h"}) as response:
            assert (await response.json())["predictions"] >= before + 1
        async with session.post("/analyze/performance", json={"window": "1h"}) as response:
            assert (await response.json())["source"] == "rules"


async def test_health__reports_all_parts(stack: Stack) -> None:
    async with client(stack, "198.51.100.2") as session, asyncio.timeout(60):
        while (health := await read_health(session))["status"] != "ok":  # a probe may be late on a busy machine
            await asyncio.sleep(0.2)
    assert health["limits"] == "exact"
    assert {name: part["status"] for name, part in health["upstreams"].items()} == {
        "inference": "ok",
        "metrics": "ok",
        "analyst": "ok",
    }


async def read_health(session: aiohttp.ClientSession) -> dict[str, Any]:
    async with session.get("/health") as response:
        health: dict[str, Any] = await response.json()
    return health


async def test_thresholds__need_the_generated_token(stack: Stack) -> None:
    token = {"Authorization": f"Bearer {stack.secret('edge-admin-token')}"}
    async with client(stack, "198.51.100.3") as session:
        async with session.get("/metrics/thresholds") as response:
            current = {"If-Match": response.headers["ETag"]}
        async with session.put("/metrics/thresholds", json={"rules": []}, headers=current) as response:
            assert response.status == 401
        async with session.put("/metrics/thresholds", json={"rules": []}, headers=current | token) as response:
            assert response.status == 200


async def test_hundred_concurrent_requests__admit_exactly_sixty(stack: Stack) -> None:
    async with client(stack, "198.51.100.4") as session:
        statuses = await asyncio.gather(*(status(session) for _ in range(100)))
    assert (statuses.count(200), statuses.count(429)) == (60, 40)


async def status(session: aiohttp.ClientSession) -> int:
    async with session.post("/predict", json=POSITIVE) as response:
        await response.read()
        return response.status

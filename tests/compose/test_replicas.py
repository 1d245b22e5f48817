"""Several replicas of every service: the exact limit, the shared load, and restarts that no client notices."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable

import aiohttp
from compose.load import Load, causes
from compose.stack import Stack


async def test_two_edges__still_admit_exactly_sixty(pairs: Stack) -> None:
    first, second = pairs.urls
    headers = {"X-Forwarded-For": "198.51.100.60"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for url in pairs.urls:
            await exact(session, url)
        statuses = await asyncio.gather(*(status(session, url) for url in [first, second] * 50))
    assert Counter(statuses) == {200: 60, 429: 40}


async def exact(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until the store decides for this edge: on a busy machine one starts without it, and decides alone."""
    async with asyncio.timeout(60):
        while True:
            async with session.get(f"{url}/health") as response:
                if (await response.json())["limits"] == "exact":
                    return
            await asyncio.sleep(0.2)


async def status(session: aiohttp.ClientSession, url: str) -> int:
    async with session.post(f"{url}/predict", json={"text": "fine"}) as response:
        await response.read()
        return response.status


async def test_two_inference_replicas__share_the_load(pairs: Stack, say: Callable[[str], None]) -> None:
    before = texts_scored(pairs)
    load = Load(pairs.urls)
    running = asyncio.create_task(load.run())
    await load.answered(400)
    load.stop()
    await running
    scored = [after - earlier for after, earlier in zip(texts_scored(pairs), before, strict=True)]
    say(f"two inference replicas scored {scored}")
    assert min(scored) >= 0.2 * sum(scored)


def texts_scored(stack: Stack) -> list[float]:
    expositions = [stack.metrics("inference", container) for container in stack.containers("inference")]
    return [
        sum(float(value) for value in re.findall(r"^sluice_inference_texts_total\S* (\S+)", text, re.MULTILINE))
        for text in expositions
    ]


async def test_rolling_restart_of_every_service__fails_no_request(pairs: Stack, say: Callable[[str], None]) -> None:
    load = Load(pairs.urls, reads=True)
    running = asyncio.create_task(load.run())
    for place in range(2):
        for service in ("inference", "metrics", "analyst"):
            await load.answered(50)
            await asyncio.to_thread(pairs.restart, pairs.containers(service)[place])
    for container in pairs.containers("edge"):
        url = f"http://127.0.0.1:{pairs.published(container)}"
        load.urls = [other for other in load.urls if other != url]  # as its load balancer does
        await load.answered(50)
        await asyncio.to_thread(pairs.restart, container)
        load.urls = [*load.urls, f"http://127.0.0.1:{pairs.published(container)}"]
    await load.answered(50)
    load.stop()
    await running
    say(f"rolling restart under load: {dict(load.statuses())}, reads {dict(load.read_outcomes)}")
    assert load.statuses().keys() == load.read_outcomes.keys() == {200}, causes(pairs, load)

"""Several replicas of every service: exact limits, shared load, and scaling and restarts without failed requests."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable

import aiohttp
from compose.load import Load, causes
from compose.stack import ROOT, Stack, run


async def test_two_edges__admit_exactly_sixty(pairs: Stack) -> None:
    first, second = pairs.urls
    headers = {"X-Forwarded-For": "198.51.100.60"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for url in pairs.urls:
            await exact(session, url)
        statuses = await asyncio.gather(*(status(session, url) for url in [first, second] * 50))
    assert Counter(statuses) == {200: 60, 429: 40}


async def exact(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until this edge uses PostgreSQL: on a busy machine one may start with local limits."""
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


async def test_scaling_inference__leaves_the_others_untouched(stack: Stack, say: Callable[[str], None]) -> None:
    """The images are built again first, as `make up` does: their ids must not change."""
    stack.tag = "local"
    await asyncio.to_thread(build_images, stack)  # other tests build too, even without the cache
    await asyncio.to_thread(stack.compose, "up", "--detach", "--wait")
    others = {name: stack.containers(name) for name in ("edge", "metrics", "analyst")}
    load = Load(stack.urls)
    running = asyncio.create_task(load.run())
    await load.answered(50)
    await asyncio.to_thread(build_images, stack)
    await asyncio.to_thread(stack.compose, "up", "--detach", "--wait", "--scale", "inference=2")
    stack.replicas = 0  # unequal: the next test scales again
    await load.answered(max(50, 500 - load.statuses()[200]))
    load.stop()
    await running
    say(f"scaling inference under load: {dict(load.statuses())}")
    assert {name: stack.containers(name) for name in others} == others
    assert len(load.outcomes) >= 500 and load.statuses().keys() == {200}, causes(stack, load)


def build_images(stack: Stack) -> None:
    """Build in the environment of the first build: the project's name is in the labels."""
    run("make", "images", environment={"SECRETS": str(stack.secrets)}, folder=ROOT)


async def test_rolling_restart_of_every_service__fails_no_request(pairs: Stack, say: Callable[[str], None]) -> None:
    load = Load(pairs.urls, reads=True)
    running = asyncio.create_task(load.run())
    for place in range(2):
        for service in ("inference", "metrics", "analyst"):
            await load.answered(50)
            await asyncio.to_thread(pairs.restart, pairs.containers(service)[place])
    for container in pairs.containers("edge"):
        url = f"http://127.0.0.1:{pairs.published(container)}"
        load.urls = [other for other in load.urls if other != url]  # as a load balancer does
        await load.answered(50)
        await asyncio.to_thread(pairs.restart, container)
        load.urls = [*load.urls, f"http://127.0.0.1:{pairs.published(container)}"]
    await load.answered(50)
    load.stop()
    await running
    say(f"rolling restart under load: {dict(load.statuses())}, reads {dict(load.read_outcomes)}")
    assert load.statuses().keys() == load.read_outcomes.keys() == {200}, causes(pairs, load)

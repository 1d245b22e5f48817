"""Shadow rules on the real edge: the enforcing rule decides, and the metric reports what the shadow would refuse."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]
POLICY = '[[policies]]\nname = "%s"\npaths = ["%s"]\nlimit = %d\nwindow_s = 60\n%s\n'
SHADOW = 'mode = "shadow"\n'


async def fine(_request: web.Request) -> web.Response:
    return web.Response()


@pytest.fixture
async def start(start_edge: StartEdge, start_upstream: StartUpstream, tmp_path: Path) -> StartEdge:
    """Call it with the lines of the policy file, and with variables."""

    async def start(*policies: str, **variables: str) -> Any:
        path = tmp_path / "policies.toml"
        path.write_text("".join(policies))
        origin = await start_upstream(fine)
        return await start_edge(EDGE_UPSTREAM_INFERENCE=origin, EDGE_POLICY_FILE=str(path), **variables)

    return start


async def decisions(edge: Any, policy: str, total: int) -> tuple[float, float]:
    """Return how many requests the shadow rule allowed and refused, once it has decided `total`."""
    async with asyncio.timeout(30):
        while True:
            allowed, refused = (
                edge.sample("sluice_edge_decisions_total", policy=policy, outcome=outcome, source="shadow")
                for outcome in ("allowed", "refused")
            )
            if allowed + refused >= total:
                return allowed, refused
            await asyncio.sleep(0)


@pytest.mark.parametrize(("limit", "expected"), [(1, (1, 4)), (50, (5, 0))])
async def test_shadow_rule__leaves_the_built_in_limit_in_force(
    start: StartEdge, limit: int, expected: tuple[int, int]
) -> None:
    edge = await start(POLICY % ("trial", "/predict", limit, SHADOW), EDGE_RATE_LIMIT="3")
    statuses = []
    for _ in range(5):
        async with edge.http.post("/predict", json={}) as response:
            statuses.append(response.status)
            assert response.headers["RateLimit-Policy"] == '"predict";q=3;w=60'
    assert statuses == [200, 200, 200, 429, 429]
    assert await decisions(edge, "trial", 5) == expected


async def test_shadow_rule__leaves_the_next_matching_policy_in_force(start: StartEdge) -> None:
    edge = await start(POLICY % ("trial", "/predict", 9, SHADOW), POLICY % ("wide", "/predict/*", 2, ""))
    assert [await edge.post() for _ in range(3)] == [200, 200, 429]
    assert await decisions(edge, "trial", 3) == (3, 0)


async def test_every_matching_shadow_rule__is_counted(start: StartEdge) -> None:
    edge = await start(POLICY % ("one", "/predict", 1, SHADOW), POLICY % ("two", "/predict/*", 2, SHADOW))
    assert [await edge.post() for _ in range(3)] == [200] * 3
    assert (await decisions(edge, "one", 3), await decisions(edge, "two", 3)) == ((1, 2), (2, 1))


async def test_list_above_the_shadow_limit__is_answered_and_counted_as_refused(start: StartEdge) -> None:
    edge = await start(POLICY % ("trial", "/predict/*", 3, SHADOW))
    assert await edge.post("/predict/batch", json={"texts": ["x"] * 4}) == 200
    assert await decisions(edge, "trial", 1) == (0, 1)


async def test_repeated_refusal_of_a_shadowed_route__is_counted_each_time(start: StartEdge) -> None:
    edge = await start(POLICY % ("trial", "/predict", 2, SHADOW), EDGE_RATE_LIMIT="1")
    for _ in range(4):
        await edge.post()
    assert await decisions(edge, "trial", 4) == (2, 2)


async def test_address_blocked_by_a_shadow_rule__is_answered_and_counted_as_refused(start: StartEdge) -> None:
    edge = await start(POLICY % ("trial", "/predict", 9, SHADOW + 'block = ["127.0.0.0/8"]'))
    assert await edge.post() == 200
    assert await decisions(edge, "trial", 1) == (0, 1)


async def test_client_exempt_from_the_enforcing_rule__is_counted_by_the_shadow_rule(start: StartEdge) -> None:
    edge = await start(
        POLICY % ("trial", "/predict/batch", 3, SHADOW), POLICY % ("wide", "/predict/*", 9, 'exempt = ["127.0.0.0/8"]')
    )
    assert await edge.post("/predict/batch", json={"texts": ["x"] * 4}) == 200
    assert await edge.post("/predict/batch", json={"texts": ["x"]}) == 200
    assert await decisions(edge, "trial", 2) == (1, 1)
    gzipped = {"Content-Encoding": "gzip"}
    assert await edge.post("/predict/batch", json=None, data=b"packed", headers=gzipped) == 200


async def test_shadow_rule_that_cannot_be_counted__does_not_affect_the_answer(
    start: StartEdge, free_port: Callable[[], int]
) -> None:
    dead = f"postgresql://x@127.0.0.1:{free_port()}/x"
    edge = await start(POLICY % ("trial", "/predict", 1, SHADOW + 'on_store_error = "closed"'), DATABASE_URL=dead)
    assert [await edge.post() for _ in range(3)] == [200] * 3
    assert edge.sample("sluice_edge_decisions_total", policy="trial", outcome="refused", source="shadow") == 0

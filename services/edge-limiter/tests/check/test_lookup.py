from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from common.runtime.readiness import create_ops_app

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]


async def fine(_request: web.Request) -> web.Response:
    return web.Response()


def ops_of(edge: Any) -> TestClient[web.Request, web.Application]:
    app = create_ops_app(edge.service.readiness, edge.service.registry)
    edge.service.ops(app)
    return TestClient(TestServer(app))


async def test_state_of_a_client__is_told_and_charges_nothing(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(fine))
    for _ in range(3):
        await edge.post()
    async with ops_of(edge) as ops:
        for _ in range(2):
            async with ops.get("/limits?policy=predict&address=127.0.0.1") as response:
                state = await response.json()
            assert (state["limit"], state["used"], state["remaining"]) == (60, 3, 57)
            assert 0 < state["reset_s"] <= 60
        async with ops.get("/limits?policy=predict&address=192.0.2.1") as response:
            assert (await response.json())["used"] == 0


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("policy=none&address=127.0.0.1", 404),
        ("policy=predict", 400),
        ("policy=predict&address=nowhere", 400),
        ("policy=predict&key=plain-key", 400),
        (f"policy=predict&key={'0' * 64}&address=::1", 400),
        (f"policy=predict&key={'0' * 64}", 200),
    ],
)
async def test_question_that_makes_no_sense__is_refused(start_edge: StartEdge, query: str, status: int) -> None:
    edge = await start_edge()
    async with ops_of(edge) as ops, ops.get(f"/limits?{query}") as response:
        assert response.status == status


async def test_store_away__is_503(start_edge: StartEdge, free_port: Callable[[], int]) -> None:
    edge = await start_edge(DATABASE_URL=f"postgresql://u:p@127.0.0.1:{free_port()}/none")
    async with ops_of(edge) as ops, ops.get("/limits?policy=predict&address=127.0.0.1") as response:
        assert response.status == 503

"""Requests that the head alone shows to be wrong are refused before they cost the client a unit."""

import io
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]

INFER = "/v2/models/bundled/infer"
CROSS_SITE = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}


async def fine(_request: web.Request) -> web.Response:
    return web.Response()


@pytest.fixture
async def edge(start_edge: StartEdge, start_upstream: StartUpstream) -> Any:
    origin = await start_upstream(fine)
    return await start_edge(**{f"EDGE_UPSTREAM_{name}": origin for name in ("INFERENCE", "METRICS", "ANALYST")})


async def remaining(edge: Any) -> int:
    async with edge.http.post("/predict", json={}) as response:
        return int(response.headers["X-RateLimit-Remaining"])


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/models/bundled", INFER])
@pytest.mark.parametrize("content_type", ["text/plain;charset=UTF-8", "multipart/form-data", None])
async def test_form_of_another_site__is_415_and_costs_nothing(edge: Any, path: str, content_type: str | None) -> None:
    headers = CROSS_SITE | ({"Content-Type": content_type} if content_type else {})
    skipped = [] if content_type else ["Content-Type"]
    async with edge.http.post(path, data=b"{}", headers=headers, skip_auto_headers=skipped) as response:
        assert (response.status, "RateLimit" in response.headers) == (415, False)
    assert await remaining(edge) == 59


@pytest.mark.parametrize("path", ["/predict", "/metrics/aggregated", "/analyze/performance"])
@pytest.mark.parametrize("content_type", ["text/plain", "application/xml"])
async def test_body_that_is_not_json__is_415(edge: Any, path: str, content_type: str) -> None:
    async with edge.http.post(path, data=b"{}", headers={"Content-Type": content_type}) as response:
        assert (response.status, "RateLimit" in response.headers) == (415, False)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON"])
async def test_json__passes_from_any_origin(edge: Any, content_type: str) -> None:
    headers = CROSS_SITE | {"Content-Type": content_type}
    async with edge.http.post("/predict", data=b"{}", headers=headers) as response:
        assert response.status == 200


@pytest.mark.parametrize("content_type", ["application/octet-stream", "application/x-www-form-urlencoded"])
async def test_inference_protocol_client__may_send_any_type(edge: Any, content_type: str) -> None:
    async with edge.http.post(INFER, data=b"{}", headers={"Content-Type": content_type}) as response:
        assert response.status == 200


async def test_declared_size_over_the_limit__is_413_and_costs_nothing(edge: Any) -> None:
    body, headers = io.BytesIO(b" " * ((1 << 20) + 1)), {"Content-Type": "application/json"}
    async with edge.http.post("/predict", data=body, headers=headers) as response:
        assert (response.status, "RateLimit" in response.headers) == (413, False)
    assert await remaining(edge) == 59


@pytest.mark.parametrize("path", ["/predict", "/health", "/", "/metrics/count", "/nowhere"])
async def test_loopback_edge__refuses_other_host_names(start_edge: StartEdge, path: str) -> None:
    edge = await start_edge(EDGE_HOST="127.0.0.1")
    async with edge.http.get(path, headers={"Host": f"rebound.example:{edge.port}"}) as response:
        assert response.status == 403
        assert "EDGE_TRUSTED_PROXIES" in (await response.json())["detail"]


@pytest.mark.parametrize("settings", [{}, {"EDGE_HOST": "127.0.0.1", "EDGE_TRUSTED_PROXIES": "127.0.0.1/32"}])
async def test_edge_that_others_reach__takes_any_host_name(
    start_edge: StartEdge, start_upstream: StartUpstream, settings: dict[str, str]
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_upstream(fine), **settings)
    async with edge.http.get("/metrics/count", headers={"Host": "sluice.example"}) as response:
        assert response.status == 200

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from openapi_spec_validator import validate

from edge_limiter.server.request import MAX_TARGET_BYTES
from launcher.valkey import Valkey

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]

METRICS_DOCUMENT: dict[str, Any] = {
    "openapi": "3.1.0",
    "paths": {"/metrics/count": {"get": {"operationId": "count", "responses": {"200": {"description": "Success"}}}}},
    "components": {"schemas": {}},
}


async def metrics_service(_request: web.Request) -> web.Response:
    return web.json_response(METRICS_DOCUMENT)


async def test_root__tells_name_version_and_endpoints(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.get("/") as response:
        document = await response.json()
    assert (document["name"], document["docs"]) == ("sluice", "/docs")
    assert {"path": "/predict", "service": "inference", "methods": ["POST"], "policy": "predict"} in document[
        "endpoints"
    ]


@pytest.mark.parametrize("header", ["User-Agent", "Accept", "If-None-Match", "Host"])
async def test_page_for_a_long_header__is_the_page(start_edge: StartEdge, header: str) -> None:
    edge = await start_edge()
    async with edge.http.get("/", headers={header: "a" * 30_000}) as response:
        assert (response.status, (await response.json())["name"]) == (200, "sluice")


async def test_page_with_the_longest_target__is_a_problem(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.get("/docs/" + "a" * (MAX_TARGET_BYTES - 6)) as response:
        assert (response.status, response.content_type) == (404, "application/problem+json")


async def test_health__is_ok_when_every_part_answers(
    start_edge: StartEdge, start_upstream: StartUpstream, redis_settings: dict[str, Any]
) -> None:
    origin = await start_upstream(metrics_service)
    edge = await start_edge(
        REDIS_HOST=redis_settings["host"],
        REDIS_PORT=str(redis_settings["port"]),
        REDIS_PASSWORD=redis_settings["password"],
        **{f"EDGE_UPSTREAM_{name}": origin for name in ("INFERENCE", "METRICS", "ANALYST")},
    )
    status, document = await edge.health(lambda found: found["status"] == "ok")
    assert (status, document["limits"]) == (200, "exact")
    assert document["database"]["status"] == "ok"
    assert document["database"]["latency_ms"] > 0
    assert {part["status"] for part in document["upstreams"].values()} == {"ok"}


async def test_health__is_degraded_without_redis_and_the_analyst(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(metrics_service))
    status, document = await edge.health(lambda found: found["upstreams"]["inference"]["status"] == "ok")
    assert (status, document["status"]) == (200, "degraded")
    assert document["redis"]["status"] == document["upstreams"]["analyst"]["status"] == "down"


async def test_health__is_degraded_while_redis_takes_no_writes(
    start_edge: StartEdge, start_upstream: StartUpstream, own_valkey: Callable[..., Valkey]
) -> None:
    server, origin = own_valkey(), await start_upstream(metrics_service)
    edge = await start_edge(
        REDIS_HOST=server.host,
        REDIS_PORT=str(server.port),
        REDIS_PASSWORD=server.password,
        **{f"EDGE_UPSTREAM_{name}": origin for name in ("INFERENCE", "METRICS", "ANALYST")},
    )
    await edge.health(lambda found: found["status"] == "ok")
    server.execute("CONFIG", "SET", "maxmemory", "1")
    status, document = await edge.health(lambda found: found["redis"]["status"] == "down")
    assert (status, document["status"]) == (200, "degraded")


async def analyst_with_a_retired_model(request: web.Request) -> web.Response:
    if request.path == "/analyze/health":
        model = {"name": "gemini-gone", "state": "not_found"}
        return web.json_response({"status": "degraded", "model": model})
    return web.json_response(METRICS_DOCUMENT)


async def test_model_that_the_provider_does_not_know__shows_in_health(
    start_edge: StartEdge, start_upstream: StartUpstream, redis_settings: dict[str, Any]
) -> None:
    edge = await start_edge(
        REDIS_HOST=redis_settings["host"],
        REDIS_PORT=str(redis_settings["port"]),
        REDIS_PASSWORD=redis_settings["password"],
        EDGE_UPSTREAM_INFERENCE=await start_upstream(metrics_service),
        EDGE_UPSTREAM_METRICS=await start_upstream(metrics_service),
        EDGE_UPSTREAM_ANALYST=await start_upstream(analyst_with_a_retired_model),
    )
    status, document = await edge.health(
        lambda found: found["model"] is not None and {part["status"] for part in found["upstreams"].values()} == {"ok"}
    )
    assert (status, document["status"]) == (200, "degraded")
    assert document["model"] == {"name": "gemini-gone", "state": "not_found"}


async def test_health__fails_without_inference(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.get("/health") as response:
        assert (response.status, (await response.json())["status"]) == (503, "failed")


async def test_health__fails_while_inference_says_that_it_is_not_ready(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    async def unready(request: web.Request) -> web.Response:
        status = 503 if request.path == "/v2/health/ready" else 200
        return web.json_response({}, status=status)

    origin = await start_upstream(unready)
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=origin, EDGE_UPSTREAM_METRICS=origin)
    status, document = await edge.health(lambda found: found["upstreams"]["metrics"]["status"] == "ok")
    assert (status, document["status"]) == (503, "failed")
    assert document["upstreams"]["inference"]["status"] == "down"


async def test_openapi__is_the_document_of_the_whole_system(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.get("/openapi.json") as response:
        document = await response.json()
    assert {"/", "/health", "/predict", "/metrics/count", "/analyze/performance"} <= set(document["paths"])
    assert document["paths"]["/metrics/count"]["get"]["tags"] == ["metrics"]
    assert "502" in document["paths"]["/metrics/count"]["get"]["responses"]
    validate(document)


@pytest.mark.parametrize(
    ("path", "content_type", "contains"),
    [
        ("/docs", "text/html", "/docs/bundle.js"),
        ("/docs/bundle.js", "text/javascript", "SwaggerUIBundle"),
        ("/docs/swagger.css", "text/css", ".swagger-ui"),
        ("/docs/start.js", "text/javascript", "/openapi.json"),
    ],
)
async def test_docs__are_served_from_here_without_inline_scripts(
    start_edge: StartEdge, path: str, content_type: str, contains: str
) -> None:
    edge = await start_edge()
    async with edge.http.get(path) as response:
        assert (response.status, response.content_type) == (200, content_type)
        policy = response.headers["Content-Security-Policy"]
        assert "script-src 'self'" in policy and "unsafe" not in policy
        assert contains in await response.text()


async def test_wrong_method_on_an_own_page__is_405(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.post("/health") as response:
        assert response.status == 405

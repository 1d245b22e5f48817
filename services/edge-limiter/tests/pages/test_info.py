from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from openapi_spec_validator import validate

from edge_limiter.server.request import MAX_TARGET_BYTES
from launcher.valkey import Valkey

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]

WORKING_MODEL = {"status": "ok", "model": {"name": "gemini-2.5-flash-lite", "state": "ok"}}
RETIRED_MODEL = {"status": "degraded", "model": {"name": "gemini-gone", "state": "not_found"}}


async def test_root__names_the_version_and_the_endpoints(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.get("/", headers={"User-Agent": "a" * 30_000}) as response:
        document = await response.json()
    assert (document["name"], document["docs"]) == ("sluice", "/docs")
    predict = {"path": "/predict", "service": "inference", "methods": ["POST"], "policy": "predict"}
    assert predict in document["endpoints"]


async def test_page_with_the_longest_target__is_a_problem(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.get("/docs/" + "a" * (MAX_TARGET_BYTES - 6)) as response:
        assert (response.status, response.content_type) == (404, "application/problem+json")


async def start_system(start_edge: StartEdge, start_upstream: StartUpstream, server: Valkey, analyst: object) -> Any:
    """Start an edge with Redis and one server for all services, with this response of the analyst to a health check."""

    async def serve(request: web.Request) -> web.Response:
        return web.json_response(analyst if request.path == "/analyze/health" else {})

    origin = await start_upstream(serve)
    return await start_edge(
        REDIS_HOST=server.host,
        REDIS_PORT=str(server.port),
        REDIS_PASSWORD=server.password,
        **{f"EDGE_UPSTREAM_{name}": origin for name in ("INFERENCE", "METRICS", "ANALYST")},
    )


async def test_health__is_ok_while_every_part_answers_and_degraded_while_redis_takes_no_writes(
    start_edge: StartEdge, start_upstream: StartUpstream, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    edge = await start_system(start_edge, start_upstream, server, WORKING_MODEL)
    status, document = await edge.health(lambda found: found["status"] == "ok")
    assert (status, document["limits"]) == (200, "exact")
    assert document["database"]["latency_ms"] > 0
    server.execute("CONFIG", "SET", "maxmemory", "1")
    status, document = await edge.health(lambda found: found["redis"]["status"] == "down")
    assert (status, document["status"]) == (200, "degraded")


async def test_health__names_a_model_that_the_provider_does_not_know(
    start_edge: StartEdge, start_upstream: StartUpstream, own_valkey: Callable[..., Valkey]
) -> None:
    edge = await start_system(start_edge, start_upstream, own_valkey(), RETIRED_MODEL)
    status, document = await edge.health(
        lambda found: found["model"] is not None and {part["status"] for part in found["upstreams"].values()} == {"ok"}
    )
    assert (status, document["status"], document["model"]) == (200, "degraded", RETIRED_MODEL["model"])


async def test_health__without_inference__fails(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.get("/health") as response:
        assert (response.status, (await response.json())["status"]) == (503, "failed")


async def test_health__while_inference_is_not_ready__fails(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    async def unready(request: web.Request) -> web.Response:
        return web.json_response({}, status=503 if request.path == "/v2/health/ready" else 200)

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


async def test_docs__are_served_from_here_without_inline_scripts(start_edge: StartEdge) -> None:
    edge = await start_edge()
    for path, content_type, contains in (
        ("/docs", "text/html", "/docs/bundle.js"),
        ("/docs/bundle.js", "text/javascript", "SwaggerUIBundle"),
        ("/docs/swagger.css", "text/css", ".swagger-ui"),
        ("/docs/start.js", "text/javascript", "/openapi.json"),
    ):
        async with edge.http.get(path) as response:
            assert (response.status, response.content_type) == (200, content_type)
            policy = response.headers["Content-Security-Policy"]
            assert "script-src 'self'" in policy and "unsafe" not in policy
            assert contains in await response.text()


async def test_edge_page__with_another_method__is_405(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.post("/health") as response:
        assert response.status == 405

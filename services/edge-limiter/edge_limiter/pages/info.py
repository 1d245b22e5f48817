"""The edge's own pages, and what its errors become; the paths that it proxies are in `routes.py`."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final, cast

from aiohttp import web
from pydantic import BaseModel

from common.contracts.reports import ModelHealth
from common.http.openapi import openapi_document, operation
from edge_limiter.pages.docs import docs_handlers
from edge_limiter.pages.documents import Documents
from edge_limiter.pages.health import Health, HealthReport, Part
from edge_limiter.proxy.handler import LocalHandler
from edge_limiter.proxy.routing import Route, RouteTable
from edge_limiter.server.request import Request
from edge_limiter.upstream.client import UpstreamClient

VERSION: Final = version("sluice-edge-limiter")

DESCRIPTION: Final = """\
Text classification behind exact limits.

**Every request** may carry `X-Request-ID` (kept, if it is well-formed), `traceparent` (W3C) and `X-Request-Timeout-Ms`:
how long you will wait; what cannot be done by then is refused with 504. **Every answer** carries `X-Request-ID`.

**Every error** is a problem document (RFC 9457, `application/problem+json`); those of the Open Inference Protocol's
routes under `/v2/` have that protocol's shape where the service itself answers, and its `error` beside the rest where
the edge refuses.

**Limits** count per client address. Answers of limited routes carry `RateLimit-Policy` and `RateLimit`, and the older
`X-RateLimit-Limit`, `-Remaining` and `-Reset`; 429 says in `Retry-After` when to try again.
"""


class Endpoint(BaseModel):
    """One public path; a path that ends in `/*` means everything below it."""

    path: str
    service: str
    methods: list[str]
    policy: str | None


class Info(BaseModel):
    """What this is and where to read on."""

    name: str
    version: str
    docs: str
    openapi: str
    health: str
    endpoints: list[Endpoint]


_INFO: Final = Info(
    name="sluice",
    version=VERSION,
    docs="/docs",
    openapi="/openapi.json",
    health="/health",
    endpoints=[Endpoint(path="/predict", service="inference", methods=["POST"], policy="predict")],
)
_UP: Final = Part(status="ok", latency_ms=1.5)
_HEALTHY: Final = Health(
    status="ok",
    database=_UP,
    redis=_UP,
    limits="exact",
    upstreams={"inference": _UP, "metrics": _UP, "analyst": _UP},
    model=ModelHealth(name="gemini-2.5-flash-lite", state="ok"),
)
_FAILED: Final = _HEALTHY.model_copy(
    update={"status": "failed", "upstreams": {**_HEALTHY.upstreams, "inference": Part(status="down")}}
)


def local_handlers(
    routes: RouteTable, health: HealthReport, upstreams: Mapping[str, UpstreamClient]
) -> dict[str, LocalHandler]:
    """Return what answers the edge's own paths."""

    @operation(response=Info, tag="edge", examples=[_INFO])
    async def read_info(_request: Request) -> Info:
        """What this service is, and what it offers."""
        return _INFO.model_copy(update={"endpoints": [_endpoint(route) for route in routes.routes]})

    @operation(response=Health, tag="edge", responses={503: _FAILED}, examples=[_HEALTHY])
    async def read_health(_request: Request) -> web.Response:
        """Whether predictions can be answered, and the state of each part.

        200 while they can, also when a part is down and the edge answers without it (`degraded`); 503 when they can't.
        """
        report = await health.read()
        status = 503 if report.status == "failed" else 200
        return web.Response(status=status, body=report.model_dump_json().encode(), content_type="application/json")

    async def read_openapi(_request: Request) -> web.Response:
        return web.Response(body=await documents.read(), content_type="application/json")

    # @operation passes the request on unchanged, so these take the server's own
    described = {"/": cast(LocalHandler, read_info), "/health": cast(LocalHandler, read_health)}
    documents = Documents(_describe(described), upstreams, routes.match)
    return described | {"/openapi.json": read_openapi} | docs_handlers()


def _describe(handlers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the edge's own OpenAPI document."""
    app = web.Application()
    for path, handler in handlers.items():
        app.router.add_get(path, handler)
    document = openapi_document(app, title="Sluice", version=VERSION, description=DESCRIPTION)
    document["info"]["license"] = {"name": "MIT", "identifier": "MIT"}
    return document | {"tags": [{"name": "edge", "description": "What this is, and how it is."}]}


def _endpoint(route: Route) -> Endpoint:
    path = f"{route.pattern}/*" if route.prefix else route.pattern
    methods = sorted(route.methods) if route.methods else ["*"]
    return Endpoint(path=path, service=route.service, methods=methods, policy=route.policy)

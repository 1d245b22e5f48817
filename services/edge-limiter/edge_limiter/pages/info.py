"""The edge's own pages, and what its errors become; the paths that it proxies are in `routes.py`."""

from importlib.metadata import version
from typing import Final, cast

from aiohttp import web
from pydantic import BaseModel

from common.contracts.reports import ModelHealth
from common.http.openapi import operation
from edge_limiter.pages.docs import docs_handlers
from edge_limiter.pages.health import Health, HealthReport, Part
from edge_limiter.proxy.handler import LocalHandler
from edge_limiter.proxy.routes import Route, RouteTable
from edge_limiter.server.request import Request

VERSION: Final = version("sluice-edge-limiter")


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


def local_handlers(routes: RouteTable, health: HealthReport) -> dict[str, LocalHandler]:
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

    # @operation passes the request on unchanged, so these take the server's own
    described = {"/": cast(LocalHandler, read_info), "/health": cast(LocalHandler, read_health)}
    return described | docs_handlers()


def _endpoint(route: Route) -> Endpoint:
    path = f"{route.pattern}/*" if route.prefix else route.pattern
    methods = sorted(route.methods) if route.methods else ["*"]
    return Endpoint(path=path, service=route.service, methods=methods, policy=route.policy)

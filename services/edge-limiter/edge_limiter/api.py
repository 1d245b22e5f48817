"""The edge's own pages, and what its errors become; the paths that it proxies are in `routes.py`."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from aiohttp import hdrs, web
from pydantic import BaseModel

from common.openapi import operation, specification
from common.problems import Problem
from common.web import ErrorTable
from edge_limiter.acceptance import Unacceptable
from edge_limiter.admin import TokenNotSet, TokenRequired
from edge_limiter.docs import add_docs
from edge_limiter.documents import Documents
from edge_limiter.health import Health, HealthReport
from edge_limiter.proxy import Proxy
from edge_limiter.routing import BadTarget, Route

VERSION: Final = version("sluice-edge-limiter")

ERRORS: Final[ErrorTable] = {
    BadTarget: lambda error: Problem(
        400, str(error), title="Malformed request target", headers={"Connection": "close"}
    ),
    Unacceptable: lambda error: Problem(error.status, error.detail, headers={"Connection": "close"}),
    TokenRequired: lambda _: Problem(
        401, "Send the admin token as Authorization: Bearer.", headers={"WWW-Authenticate": 'Bearer realm="sluice"'}
    ),
    TokenNotSet: lambda _: Problem(
        403, "This needs an admin token, and the edge is reachable from other machines: set EDGE_ADMIN_TOKEN."
    ),
}


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


@dataclass(frozen=True, slots=True)
class Edge:
    """What the handlers need; opened with the app's resources."""

    proxy: Proxy
    health: HealthReport
    documents: Documents


EDGE: Final = web.AppKey("edge", Edge)


@operation(response=Info, tag="edge")
async def read_info(request: web.Request) -> Info:
    """What this service is, and what it offers."""
    endpoints = [_endpoint(route) for route in request.app[EDGE].proxy.routes.routes]
    return Info(
        name="sluice", version=VERSION, docs="/docs", openapi="/openapi.json", health="/health", endpoints=endpoints
    )


@operation(response=Health, tag="edge", errors=(503,))
async def read_health(request: web.Request) -> web.Response:
    """Whether predictions can be answered, and the state of each part.

    200 while they can, also when a part is away and the edge answers without it (`degraded`); 503 when they can't.
    """
    health = await request.app[EDGE].health.read()
    status = 503 if health.status == "failed" else 200
    return web.Response(status=status, body=health.model_dump_json().encode(), content_type="application/json")


async def read_openapi(request: web.Request) -> web.Response:
    """The documents of the edge and of the services behind it, as one."""
    return web.Response(body=await request.app[EDGE].documents.read(), content_type="application/json")


def add_routes(app: web.Application) -> dict[str, Any]:
    """Register the pages. Returns the edge's own OpenAPI document."""
    app.on_response_prepare.append(_hide_version)
    app.router.add_get("/", read_info)
    app.router.add_get("/health", read_health)
    app.router.add_get("/openapi.json", read_openapi)
    add_docs(app)
    return specification(app, title="Sluice", version=VERSION, description="Text classification behind exact limits.")


async def _hide_version(_request: web.Request, response: web.StreamResponse) -> None:
    """aiohttp would tell its version and Python's."""
    response.headers[hdrs.SERVER] = "sluice"


def _endpoint(route: Route) -> Endpoint:
    path = f"{route.pattern}/*" if route.prefix else route.pattern
    methods = sorted(route.methods) if route.methods else ["*"]
    return Endpoint(path=path, service=route.service, methods=methods, policy=route.policy)

"""The edge's HTTP surface: its own pages, the strict door before every route, and the paths that it proxies."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from pydantic import BaseModel

from common.openapi import operation, specification
from common.problems import Problem
from common.web import ErrorTable
from edge_limiter.acceptance import Unacceptable, check_head
from edge_limiter.admin import TokenNotSet, TokenRequired
from edge_limiter.docs import add_docs
from edge_limiter.documents import Documents
from edge_limiter.health import Health, HealthReport
from edge_limiter.proxy import TARGET, Proxy
from edge_limiter.routing import BadTarget, Route, parse_target

VERSION: Final = version("sluice-edge-limiter")

ERRORS: Final[ErrorTable] = {
    BadTarget: lambda error: Problem(400, str(error), title="Malformed request target"),
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


async def proxied(request: web.Request) -> web.StreamResponse:
    """Everything that a service behind the edge answers."""
    return await request.app[EDGE].proxy.handle(request)


@web.middleware
async def strict(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse ambiguous requests before any handler, also those for paths that nobody serves."""
    check_head(request.method, (request.version.major, request.version.minor), request.headers, request.raw_headers)
    request[TARGET] = parse_target(request.raw_path)
    return await handler(request)


def add_routes(app: web.Application, routes: Iterable[Route]) -> dict[str, Any]:
    """Register all handlers. Returns the edge's own OpenAPI document."""
    app.middlewares.append(strict)
    app.on_response_prepare.append(_close_if_told)
    app.router.add_get("/", read_info)
    app.router.add_get("/health", read_health)
    app.router.add_get("/openapi.json", read_openapi)
    add_docs(app)
    for top in sorted({route.pattern.split("/")[1] for route in routes}):
        for path in (f"/{top}", f"/{top}/{{tail:.*}}"):
            app.router.add_route("*", path, proxied, expect_handler=_expect)
    return specification(app, title="Sluice", version=VERSION, description="Text classification behind exact limits.")


async def _expect(_request: web.Request) -> None:
    """The 100 goes out when the body is read (see `relay`): a refused request should not send it."""


async def _close_if_told(_request: web.Request, response: web.StreamResponse) -> None:
    """aiohttp writes a `Connection: close` of ours but would go on reading: after a doubtful head we must not."""
    if response.headers.get(hdrs.CONNECTION) == "close":
        response.force_close()


def _endpoint(route: Route) -> Endpoint:
    path = f"{route.pattern}/*" if route.prefix else route.pattern
    methods = sorted(route.methods) if route.methods else ["*"]
    return Endpoint(path=path, service=route.service, methods=methods, policy=route.policy)

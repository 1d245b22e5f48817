"""The edge's own pages, and what its errors become; the paths that it proxies are in `routes.py`."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from aiohttp import hdrs, web
from pydantic import BaseModel

from common.contracts.reports import ModelHealth
from common.http.app import ErrorTable
from common.http.openapi import openapi_document, operation
from common.http.problems import Problem
from edge_limiter.acceptance import Unacceptable
from edge_limiter.admin import NotLocal, TokenNotSet, TokenRequired
from edge_limiter.docs import add_docs
from edge_limiter.documents import Documents
from edge_limiter.health import Health, HealthReport, Part
from edge_limiter.proxy import Proxy
from edge_limiter.routing import BadTarget, Route

VERSION: Final = version("sluice-edge-limiter")

ERRORS: Final[ErrorTable] = {
    BadTarget: lambda error: Problem(
        400, str(error), title="Malformed request target", headers={"Connection": "close"}
    ),
    Unacceptable: lambda error: Problem(
        error.status,
        error.detail,
        headers={"Connection": "close"} | ({"Retry-After": "1"} if error.status == 503 else {}),
    ),
    TokenRequired: lambda _: Problem(
        401, "Send the admin token as Authorization: Bearer.", headers={"WWW-Authenticate": 'Bearer realm="sluice"'}
    ),
    TokenNotSet: lambda _: Problem(
        403,
        "No admin token is set, and other machines can reach the edge, perhaps through a proxy: set EDGE_ADMIN_TOKEN.",
    ),
    NotLocal: lambda _: Problem(
        403,
        "No admin token is set, so this takes only direct requests whose Host is localhost or 127.0.0.1: "
        "set EDGE_ADMIN_TOKEN.",
    ),
}


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


@dataclass(frozen=True, slots=True)
class Edge:
    """What the handlers need; opened with the app's resources."""

    proxy: Proxy
    health: HealthReport
    documents: Documents


EDGE: Final = web.AppKey("edge", Edge)


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


@operation(response=Info, tag="edge", examples=[_INFO])
async def read_info(request: web.Request) -> Info:
    """What this service is, and what it offers."""
    endpoints = [_endpoint(route) for route in request.app[EDGE].proxy.routes.routes]
    return Info(
        name="sluice", version=VERSION, docs="/docs", openapi="/openapi.json", health="/health", endpoints=endpoints
    )


@operation(response=Health, tag="edge", responses={503: _FAILED}, examples=[_HEALTHY])
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
    document = openapi_document(app, title="Sluice", version=VERSION, description=DESCRIPTION)
    document["info"]["license"] = {"name": "MIT", "identifier": "MIT"}
    return document | {"tags": [{"name": "edge", "description": "What this is, and how it is."}]}


async def _hide_version(_request: web.Request, response: web.StreamResponse) -> None:
    """aiohttp would tell its version and Python's."""
    response.headers[hdrs.SERVER] = "sluice"


def _endpoint(route: Route) -> Endpoint:
    path = f"{route.pattern}/*" if route.prefix else route.pattern
    methods = sorted(route.methods) if route.methods else ["*"]
    return Endpoint(path=path, service=route.service, methods=methods, policy=route.policy)

"""Build the OpenAPI document of the whole system from the code of its services. Nothing is started."""

import json
from pathlib import Path
from typing import Any, Final, cast

from aiohttp import web
from merge import merge

import edge_limiter
from analyst.app import create_service as create_analyst
from analyst.settings import AnalystSettings
from common.http.openapi import OPENAPI, openapi_document
from common.runtime.settings import load
from edge_limiter.pages.health import HealthReport
from edge_limiter.pages.info import VERSION, local_handlers
from edge_limiter.proxy.routes import ROUTES, RouteTable
from inference.app import create_service as create_inference
from inference.settings import InferenceSettings
from metrics.app import create_service as create_metrics
from metrics.settings import MetricsSettings

PATH: Final = Path(edge_limiter.__file__).parent / "pages" / "openapi.json"

DESCRIPTION: Final = """\
Text classification behind exact limits.

**Every request** may carry `X-Request-ID` (kept, if it is well-formed), `traceparent` (W3C) and `X-Request-Timeout-Ms`:
how long you will wait; what cannot be done by then is refused with 504. **Every answer** carries `X-Request-ID`.

**Every error** is a problem document (RFC 9457, `application/problem+json`). Routes under `/v2/` answer in the Open
Inference Protocol's shape, and where the edge refuses, add its `error` to the document. `/v1/moderations`, `/classify`
and `/v1/classify` add OpenAI's `error` object.

**Limits** count per client address. Answers of limited routes carry `RateLimit-Policy` and `RateLimit`, and the older
`X-RateLimit-Limit`, `-Remaining` and `-Reset`; 429 says in `Retry-After` when to try again.
"""

_DATABASE: Final = {"DATABASE_URL": "postgresql://none@127.0.0.1/none"}  # required, and not opened


def render() -> str:
    """Return the document as JSON, one line per value, so that a change is a readable diff."""
    return json.dumps(build(), indent=1, ensure_ascii=False) + "\n"


def build() -> dict[str, Any]:
    """Return the edge's own operations merged with those that it routes to the services."""
    routes = RouteTable(ROUTES)
    services = {
        "inference": create_inference(load(InferenceSettings, {})).app[OPENAPI],
        "metrics": create_metrics(load(MetricsSettings, _DATABASE)).app[OPENAPI],
        "analyst": create_analyst(load(AnalystSettings, _DATABASE)).app[OPENAPI],
    }
    return merge(_own(routes), services, routes.match)


def _own(routes: RouteTable) -> dict[str, Any]:
    app = web.Application()
    for path, handler in local_handlers(routes, cast(HealthReport, None)).items():
        app.router.add_get(path, cast(Any, handler))
    document = openapi_document(app, title="Sluice", version=VERSION, description=DESCRIPTION)
    document["info"]["license"] = {"name": "MIT", "identifier": "MIT"}
    return document | {"tags": [{"name": "edge", "description": "What this service is, and its health."}]}

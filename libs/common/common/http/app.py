"""The aiohttp app of every service: request context, problem documents, metrics, one log line per request."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from common.http.context import REQUEST_ID, RequestContext, read_context
from common.http.problems import Problem, check_content_encoding
from common.runtime.logs import is_verbose
from common.runtime.loopback import LOCALHOST_ONLY, is_localhost_header
from common.runtime.metrics import HttpMetrics

log = structlog.get_logger()

CONTEXT: Final = web.RequestKey("context", RequestContext)

ErrorTable = Mapping[type[Exception], Callable[[Any], Problem]]
"""Maps domain errors to problems. The most derived class in the table wins."""

CLIENT_LEFT: Final = 499
"""The client disconnected before a response. Only in metrics and logs."""

QUIET_STATUSES: Final = frozenset({429, 503, CLIENT_LEFT})  # counted, but not logged: they come in floods

_STARTED: Final = web.RequestKey("started", bool)


@dataclass(frozen=True, slots=True)
class AppConfig:
    """Settings of an app: size limit, timeouts, error table, metrics and clock.

    `is_local`: the service listens on loopback and accepts only requests whose Host is localhost. This stops DNS
    rebinding, where a web page resolves its own name to this machine.
    """

    metrics: HttpMetrics
    errors: ErrorTable = field(default_factory=dict)
    max_body_bytes: int = 1 << 20
    default_timeout_s: float = 10.0
    maximum_timeout_s: float = 120.0
    is_local: bool = False
    now: Callable[[], float] = time.monotonic


def create_app(config: AppConfig) -> web.Application:
    """Return an app whose responses carry X-Request-ID and whose errors are problem documents.

    A response that fails half-way is aborted, so that no client takes it for complete. If the request body is not
    complete when the response starts, the connection closes and the rest of the body is discarded.
    """
    app = web.Application(middlewares=[request_middleware(config)], client_max_size=config.max_body_bytes)
    app.on_response_prepare.append(_add_request_id)
    return app


def context(request: web.Request) -> RequestContext:
    """Return the id, trace and deadline of the request."""
    return request[CONTEXT]


def route_of(request: web.Request) -> str:
    """Return the matched route pattern. Unlike paths, patterns are bounded in number."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"


async def _add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    if CONTEXT in request:  # unset when aiohttp refuses an Expect header before any middleware
        request[_STARTED] = True
        response.headers[REQUEST_ID] = request[CONTEXT].request_id
    if not request.content.is_eof():
        _discard_request_body(request, response)


def _discard_request_body(request: web.Request, response: web.StreamResponse) -> None:
    """Discard the rest without decoding it: a megabyte of gzip can block the loop for two seconds."""
    response.headers[hdrs.CONNECTION] = "close"
    response.force_close()
    request.protocol.close()
    if request.content.exception() is not None:
        request.content.feed_eof()  # otherwise aiohttp reads on, logs an error and aborts the connection


def request_middleware(config: AppConfig) -> Middleware:
    @web.middleware
    async def handle(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = config.now()
        ctx = read_context(
            request.headers, started, default_s=config.default_timeout_s, maximum_s=config.maximum_timeout_s
        )
        request[CONTEXT] = ctx
        status, cause = CLIENT_LEFT, None
        config.metrics.in_flight += 1
        with structlog.contextvars.bound_contextvars(request_id=ctx.request_id, trace_id=ctx.trace_id):
            try:
                response, cause = await _respond(config, request, handler)
                status = response.status
            except web.HTTPException as redirection:
                status = redirection.status
                raise
            finally:
                config.metrics.in_flight -= 1
                _record(config, request, status, config.now() - started, cause)
                cause = None  # its traceback refers to this frame: a reference cycle
        return response

    return handle


async def _respond(
    config: AppConfig, request: web.Request, handler: Handler
) -> tuple[web.StreamResponse, Exception | None]:
    """Return the response, or the problem and its error. Redirections are raised."""
    try:
        if config.is_local and not is_localhost_header(request.headers.get(hdrs.HOST, "")):
            raise Problem(403, LOCALHOST_ONLY)
        check_content_encoding(request.headers.get(hdrs.CONTENT_ENCODING))
        return await handler(request), None
    except Exception as error:
        is_redirection = isinstance(error, web.HTTPException) and error.status < 400
        if is_redirection or request.transport is None:  # without a transport the client is gone
            raise
        if _STARTED in request:
            request.protocol.force_close()
        return problem_of(config.errors, error).response(request[CONTEXT].request_id), error


def problem_of(table: ErrorTable, error: Exception) -> Problem:
    """Return the problem for an error."""
    if isinstance(error, Problem):
        return error
    for cls in type(error).__mro__:
        if cls in table:
            return table[cls](error)
    if isinstance(error, web.HTTPException):
        return _from_aiohttp(error)
    if isinstance(error, web.RequestPayloadError):
        return Problem(400, "The body does not match its Content-Encoding or Transfer-Encoding.")
    return Problem(500, "The service failed to answer; quote the request id.")


def _from_aiohttp(error: web.HTTPException) -> Problem:
    details = {
        404: "No such route. GET /openapi.json lists all routes.",
        405: "This route does not support that method; see Allow.",
        413: "The body is larger than this service accepts.",
    }
    allow = {"Allow": error.headers[hdrs.ALLOW]} if hdrs.ALLOW in error.headers else {}
    return Problem(error.status, details.get(error.status), headers=allow)


def _record(config: AppConfig, request: web.Request, status: int, seconds: float, cause: Exception | None) -> None:
    route = route_of(request)
    config.metrics.observe(route, request.method, status, seconds)
    record_request(route, request.method, status, seconds, cause)


def record_request(
    route: str, method: str, status: int, seconds: float, cause: Exception | None, **context: object
) -> None:
    """Log a request in one line. `context` adds fields that are not bound to the log context."""
    is_quiet = status < 400 or status in QUIET_STATUSES
    if is_quiet and not is_verbose():
        return
    fields = {"route": route, "method": method, "status": status, "ms": round(seconds * 1000, 2), **context}
    if is_quiet:
        log.debug("request", **fields)
    elif status < 500:
        log.info("request refused", **fields)
    elif status == 500:
        log.error("request crashed", **fields, exc_info=cause)
    else:
        log.warning("request failed", **fields, error=type(cause).__name__ if cause else None, because=_because(cause))


def _because(cause: Exception | None) -> str | None:
    """Return the names of the causes. Their messages could include user text or secrets."""
    below = cause.__cause__ if cause is not None else None
    names: list[str] = []
    while below is not None:
        names.append(type(below).__name__)
        below = below.__cause__
    return " < ".join(names) or None

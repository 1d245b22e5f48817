"""What every request gets at the door, whatever becomes of it: an id, a problem document for an error, metrics, a line
in the log. The edge's own pages are handed to the server that has them, the rest is the proxy's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs

from common.problems import CONTENT_TYPE, Problem
from common.requests import REQUEST_ID, TIMEOUT_MS, TRACEPARENT, RequestContext, read_context, uuid7
from common.telemetry import HttpMetrics
from common.web import CLIENT_LEFT, QUIET_STATUSES, ErrorTable, problem_of, record_request
from edge_limiter.body import ClientGone
from edge_limiter.connection import Connection
from edge_limiter.outgoing import Outgoing
from edge_limiter.pages import Pages
from edge_limiter.proxy import Proxy
from edge_limiter.request import Request
from edge_limiter.routing import Route, Target, parse_target
from edge_limiter.wire import date

_NO_ROUTE: Final = "No such route; GET /openapi.json lists them."
UNMATCHED: Final = "unmatched"
_TOLD: Final = frozenset({"x-request-id", "traceparent", "x-request-timeout-ms"})


@dataclass(frozen=True, slots=True)
class Boundary:
    """`logs_all` when also good answers get a line; a flood must not pay for lines that nobody reads."""

    proxy: Proxy
    pages: Pages
    metrics: HttpMetrics
    errors: ErrorTable
    default_timeout_s: float
    maximum_timeout_s: float
    logs_all: bool = False
    now: Callable[[], float] = time.monotonic

    async def handle(self, request: Request, connection: Connection) -> None:
        """Answer one request; raises nothing but cancellation."""
        started = self.now()
        ctx = self._context(request, started)
        answered = _Answered()
        try:
            if request.refusal is not None:
                raise request.refusal
            target = parse_target(request.target)
            if self.pages.has(target.path):
                answered.is_elsewhere = True
                self.pages.take_over(request, target, ctx, connection)
            else:
                answered.route = self._route(request, target)
                answered.status = await self.proxy.handle(request, answered.route, target, ctx, connection.out)
        except ClientGone:
            pass
        except Exception as error:
            answered.cause = error
            answered.is_elsewhere = False
            answered.status = self._fail(error, answered.route, ctx, connection.out)
        finally:
            request.body.free_room()
            if not answered.is_elsewhere:
                self._record(request, answered, self.now() - started, ctx)

    def _route(self, request: Request, target: Target) -> Route:
        route = self.proxy.routes.match(request.method, target.path)
        if route is None:
            raise Problem(404, _NO_ROUTE)
        return route

    def _context(self, request: Request, now: float) -> RequestContext:
        fields = request.fields
        if _TOLD.isdisjoint(fields):
            return RequestContext(uuid7(), None, None, now + self.default_timeout_s)
        told = {
            REQUEST_ID: fields.get("x-request-id", ""),
            TRACEPARENT: fields.get("traceparent", ""),
            TIMEOUT_MS: fields.get("x-request-timeout-ms", ""),
        }
        return read_context(told, now, default_s=self.default_timeout_s, maximum_s=self.maximum_timeout_s)

    def _fail(self, error: Exception, route: Route | None, ctx: RequestContext, out: Outgoing) -> int:
        """The status that the client hears; an answer that has begun can only be cut."""
        problem = problem_of(self.errors, error)
        if route is not None:
            self.proxy.refusals.count(problem.status, route.name, route.policy)
        if out.has_begun:
            out.cut()
        else:
            send_problem(out, problem, ctx.request_id)
        return problem.status

    def _record(self, request: Request, answered: "_Answered", seconds: float, ctx: RequestContext) -> None:
        status = answered.status
        route = answered.route.name if answered.route is not None else UNMATCHED
        self.metrics.observe(route, request.method, status, seconds)
        is_ours = answered.cause is not None  # what an upstream answered stands in the log of the upstream
        if self.logs_all or (is_ours and status not in QUIET_STATUSES):
            record_request(
                route, request.method, status, seconds, answered.cause,
                request_id=ctx.request_id, trace_id=ctx.trace_id,
            )  # fmt: skip


class _Answered:
    """What became of a request."""

    __slots__ = ("cause", "is_elsewhere", "route", "status")

    def __init__(self) -> None:
        self.status = CLIENT_LEFT
        self.route: Route | None = None
        self.cause: Exception | None = None
        self.is_elsewhere = False


def send_problem(out: Outgoing, problem: Problem, request_id: str) -> None:
    """Render as `application/problem+json`; a problem that says `Connection: close` ends the connection."""
    document = problem.document.model_copy(update={"request_id": request_id})
    told = {name: value for name, value in problem.headers.items() if name != hdrs.CONNECTION}
    headers = [
        ("Content-Type", CONTENT_TYPE),
        date(),
        (REQUEST_ID, request_id),
        *told.items(),
    ]
    body = document.model_dump_json(exclude_none=True).encode()
    out.send(problem.status, headers, body, close=hdrs.CONNECTION in problem.headers)

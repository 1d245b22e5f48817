"""Entry point for every request: assigns id and deadline, routes, renders errors, records metrics and the log line."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from common.http.app import problem_of, record_request
from common.http.context import REQUEST_ID, TIMEOUT_MS, TRACEPARENT, RequestContext, is_timeout, read_context, uuid7
from common.http.problems import Problem
from common.runtime.logs import is_verbose
from common.runtime.loopback import is_localhost_header
from common.runtime.metrics import HttpMetrics
from edge_limiter.proxy.admin import NoAdmin
from edge_limiter.proxy.enforcement import Enforcer
from edge_limiter.proxy.forward import WHOLE_BYTES, Forwarder
from edge_limiter.proxy.responses import ERRORS, send_problem
from edge_limiter.proxy.routes import Route, RouteTable, parse_target
from edge_limiter.proxy.state import RequestState
from edge_limiter.server.request import ClientDisconnected, Request
from edge_limiter.server.response import ResponseWriter, date_header

_NOT_LOCAL: Final = "This edge accepts only localhost and 127.0.0.1 as Host. Behind a proxy, set EDGE_TRUSTED_PROXIES."
_CONTEXT_HEADERS: Final = frozenset({"x-request-id", "traceparent", "x-request-timeout-ms"})


LocalHandler = Callable[[Request], Awaitable[web.Response]]
"""Answers one of the edge's own paths."""

CHECK_PATH: Final = "/check"


@dataclass(frozen=True, slots=True)
class ProxyHandler:
    """`local` answers GET and HEAD for the edge's own paths, `check` decides for other gateways.

    `budgets_s` has the deadlines of slower services. `hash_client` pseudonymises addresses in the log.
    With `is_local`, only this machine reaches the edge, so `Host` must name it. Otherwise a web page could point its
    own name at 127.0.0.1.
    """

    routes: RouteTable
    local: Mapping[str, LocalHandler]
    check: Callable[[RequestState], Awaitable[None]]
    enforcer: Enforcer
    forwarder: Forwarder
    metrics: HttpMetrics
    budget_s: float
    budgets_s: Mapping[str, float]
    max_budget_s: float
    hash_client: Callable[[str], str | None]
    is_local: bool

    async def handle(self, request: Request, response: ResponseWriter) -> None:
        """Answer one request. Every error becomes a problem document."""
        started_s = time.monotonic()
        state = RequestState(request, response, self._context(request, started_s), started_s)
        route = "unmatched"
        try:
            if request.error is not None:
                raise request.error
            if self.is_local and not is_localhost_header(request.fields.get("host", "")):
                raise Problem(403, _NOT_LOCAL)
            state.target = parse_target(request.target)
            local = self.local.get(state.target.path)
            if local is not None:
                route = state.target.path
                await _answer_locally(state, local)
            elif state.target.path == CHECK_PATH:
                route = CHECK_PATH
                await self.check(state)
            else:
                state.route = self._route(state)
                route = state.route.pattern
                await self._proxy(state)
        except ClientDisconnected:
            pass
        except Exception as error:
            self._fail(state, error)
        finally:
            self._record(state, route)

    async def _proxy(self, state: RequestState) -> None:
        self._set_deadline(state)
        if not await self.enforcer.admits(state):
            return
        try:
            await self.forwarder.forward(state)
        except Problem as problem:
            problem.headers.update(state.limit_headers)
            raise

    def _route(self, state: RequestState) -> Route:
        route = self.routes.match(state.request.method, state.target.path)
        if route is None:
            raise Problem(404, "No such route; GET /openapi.json lists them.")
        return route

    def _context(self, request: Request, now: float) -> RequestContext:
        fields = request.fields
        if _CONTEXT_HEADERS.isdisjoint(fields):
            return RequestContext(uuid7(), None, None, now + self.budget_s)
        headers = {
            REQUEST_ID: fields.get("x-request-id", ""),
            TRACEPARENT: fields.get("traceparent", ""),
            TIMEOUT_MS: fields.get("x-request-timeout-ms", ""),
        }
        return read_context(headers, now, default_s=self.budget_s, maximum_s=self.max_budget_s)

    def _set_deadline(self, state: RequestState) -> None:
        """Give a request for a slow service that service's deadline, unless the client named its own."""
        budget_s = self.budgets_s.get(state.route.service)
        if budget_s is not None and not is_timeout(state.request.fields.get("x-request-timeout-ms", "")):
            state.ctx = state.ctx._replace(deadline_s=state.started_s + budget_s)

    def _fail(self, state: RequestState, error: Exception) -> None:
        """Send the problem for `error`, or abort the connection if the response has started."""
        problem = problem_of(ERRORS, error)
        state.cause, state.status = error, problem.status
        route = getattr(state, "route", None)
        if route is not None and route.policy == "predict":  # the error rate is that of predictions
            self.enforcer.rejections.count(problem.status, route.pattern, route.policy)
        if state.response.has_started:
            state.response.abort()
        else:
            is_oip = route is not None and route.is_oip
            send_problem(state.response, problem, state.ctx.request_id, is_oip=is_oip)

    def _record(self, state: RequestState, route: str) -> None:
        status, method, cause = state.status, state.request.method, state.cause
        seconds = time.monotonic() - state.started_s
        self.metrics.observe(route, method, status, seconds)
        if cause is not None or is_verbose():  # the upstream logs its own errors
            context = {"request_id": state.ctx.request_id, "trace_id": state.ctx.trace_id}
            if isinstance(cause, NoAdmin):
                context["client"] = self.hash_client(state.client.address)
            record_request(route, method, status, seconds, cause, **context)
        if cause is not None:  # break the reference cycle with the traceback
            cause.__traceback__ = state.cause = None


async def _answer_locally(state: RequestState, local: LocalHandler) -> None:
    request, response = state.request, state.response
    if request.method not in ("GET", "HEAD"):
        raise Problem(405, "This route does not support that method; see Allow.", headers={"Allow": "GET, HEAD"})
    page = await local(request)
    assert isinstance(page.body, bytes)
    headers = [*page.headers.items(), date_header(), ("Server", "sluice"), (REQUEST_ID, state.ctx.request_id)]
    if len(page.body) <= WHOLE_BYTES or request.method == "HEAD":
        response.send(page.status, headers, page.body)
    else:
        response.start(page.status, headers, len(page.body))
        for start in range(0, len(page.body), WHOLE_BYTES):
            await response.write(page.body[start : start + WHOLE_BYTES])
        response.end()
    state.status = page.status

"""`/check`: decide for another gateway whether the request that its headers describe may pass."""

from collections.abc import Awaitable, Callable
from typing import Final

from common.http.context import REQUEST_ID
from common.http.problems import Problem
from edge_limiter.proxy.enforcement import Enforcer
from edge_limiter.proxy.routes import Route, RouteTable, parse_target
from edge_limiter.proxy.state import RequestState
from edge_limiter.ratelimit.policy import MAX_LIMIT
from edge_limiter.server.request import Request
from edge_limiter.server.response import date_header

_OTHER: Final = Route("/check", "gateway", policy=None)
"""The route of paths that the edge does not serve. A gateway may serve them, and policies may limit them."""


def check_handler(routes: RouteTable, enforcer: Enforcer) -> Callable[[RequestState], Awaitable[None]]:
    """Return the handler of `/check`: 200 or 429 with the headers of a proxied request, and an empty body for 200.

    Any method is accepted, because Envoy sends the method of the request itself.
    Raises Problem 403 for a peer that is not a trusted proxy, 400 without a description of the request, and the errors
    of a proxied request.
    """

    async def check(state: RequestState) -> None:
        request = state.request
        if not enforcer.clients.of(request.peer).via_trusted_proxy:
            raise Problem(403, "Only gateways may use this. Name this gateway's address in EDGE_TRUSTED_PROXIES.")
        state.units = _cost(request.fields.get("x-cost"))
        state.request = described = _described(request)
        state.target = parse_target(described.target)
        state.route = routes.match(described.method, state.target.path) or _OTHER
        if await enforcer.admits(state):
            state.status = 200
            headers = [date_header(), (REQUEST_ID, state.ctx.request_id), *state.limit_headers]
            state.response.send(200, headers, b"")

    return check


def _described(request: Request) -> Request:
    """Return the request that the gateway received, without its body."""
    fields = request.fields
    target = fields.get("x-forwarded-uri") or fields.get("x-original-uri")
    if not target:
        raise Problem(400, "Send the path of the request as X-Forwarded-Uri or X-Original-URI.")
    method = fields.get("x-forwarded-method") or fields.get("x-original-method") or request.method
    return Request(method.upper(), target, request.headers, fields, request.peer)


def _cost(value: str | None) -> int:
    if not value:
        return 1
    if not (value.isascii() and value.isdecimal() and len(value) < 10 and int(value) >= 1):
        raise Problem(400, "X-Cost must be a whole number, at least 1.")
    return min(int(value), MAX_LIMIT + 1)

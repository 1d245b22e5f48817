"""One request through the edge: route, admin rule, client, limit, upstream, answer. Refuses before it forwards."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from aiohttp import hdrs, web

from common.problems import CONTENT_TYPE, Problem, unavailable
from common.requests import REQUEST_ID, TIMEOUT_MS, RequestContext
from common.web import context
from edge_limiter.admin import Admin
from edge_limiter.cost import cost_of
from edge_limiter.exchange import (
    BadGateway,
    Exchange,
    ExchangeError,
    Headers,
    UpstreamBusy,
    UpstreamLate,
    answer_headers,
    onward_headers,
)
from edge_limiter.identity import Client, Clients
from edge_limiter.limiter import CostAboveLimit, Decision, Limiter, LimiterClosed
from edge_limiter.policy import Policy
from edge_limiter.ratelimit_headers import rate_limit, refusal, retry_after
from edge_limiter.refusals import Refusals
from edge_limiter.relay import BodyStream, read_whole, request_body, send_answer
from edge_limiter.routing import Route, RouteTable, Target

VIA: Final = "1.1 sluice"
TARGET: Final = web.RequestKey("target", Target)
_STORE_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """What a request needs on its way. `policies` is read at each request, so it may be replaced in place."""

    routes: RouteTable
    policies: Mapping[str, Policy]
    limiter: Limiter
    clients: Clients
    admin: Admin
    upstreams: Mapping[str, Exchange]
    budgets_s: Mapping[str, float]
    refusals: Refusals
    decided: Callable[[str, bool, str], None]
    max_body_bytes: int
    now: Callable[[], float] = time.monotonic

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request of a service behind the edge."""
        target = request[TARGET]
        route = self.routes.match(request.method, target.path)
        if route is None:
            raise Problem(404, "No such route; GET /openapi.json lists them.")
        try:
            response = await self._admit(request, route, target)
        except Problem as problem:
            self.refusals.count(problem.status, route.name, route.policy)
            raise
        return response

    async def _admit(self, request: web.Request, route: Route, target: Target) -> web.StreamResponse:
        if route.needs_admin:
            self.admin.check(request.headers.get(hdrs.AUTHORIZATION))
        client = self.clients.of(request.remote or "0.0.0.0", request.headers.getall("X-Forwarded-For", ()))
        ctx = self._budget(request, route)
        if route.policy is None:
            return await self._forward(request, route, target, client, ctx, [])
        policy = self.policies[route.policy]
        decision = await self._decide(request, route, policy, client, ctx)
        limits = rate_limit(policy, decision)
        if not decision.allowed:
            self.refusals.count(429, route.name, policy.name)
            return _refused(policy, decision, limits, ctx)
        try:
            return await self._forward(request, route, target, client, ctx, limits)
        except Problem as problem:
            problem.headers.update(limits)
            raise

    def _budget(self, request: web.Request, route: Route) -> RequestContext:
        """The door's deadline, or the service's own where the client named none."""
        ctx = context(request)
        budget_s = self.budgets_s.get(route.service)
        if budget_s is None or TIMEOUT_MS in request.headers:
            return ctx
        return dataclasses.replace(ctx, deadline_s=self.now() + budget_s)

    async def _decide(
        self, request: web.Request, route: Route, policy: Policy, client: Client, ctx: RequestContext
    ) -> Decision:
        cost = 1
        if route.cost != "one":
            _refuse_length(request, self.max_body_bytes)
            cost = cost_of(route.cost, await read_whole(request, ctx.remaining_s(self.now())))
        try:
            decision = await self.limiter.decide(policy, client.bucket, cost)
        except LimiterClosed:
            self.decided(policy.name, False, "closed")
            raise unavailable("Requests cannot be counted right now.", _STORE_RETRY_S) from None
        except CostAboveLimit:
            raise Problem(
                413,
                f"This request counts {cost} times; the limit is {policy.limit} in {policy.window_s} s: send fewer.",
            ) from None
        self.decided(policy.name, decision.allowed, decision.source)
        return decision

    async def _forward(
        self,
        request: web.Request,
        route: Route,
        target: Target,
        client: Client,
        ctx: RequestContext,
        limits: "Headers | tuple[tuple[str, str], ...]",
    ) -> web.StreamResponse:
        body, framing = await request_body(request, self.max_body_bytes, ctx.remaining_s(self.now()))
        now = self.now()
        headers = self._onward(request, client, ctx, now)
        headers += framing
        exchange = self.upstreams[route.service]
        try:
            async with exchange(request.method, target.path_and_query, headers, body, ctx.remaining_s(now)) as answer:
                back = answer_headers(answer.headers)
                back += [("Via", VIA), (REQUEST_ID, ctx.request_id), *limits]
                return await send_answer(request, answer, back)
        except ExchangeError as error:
            if isinstance(body, BodyStream) and body.too_large:
                raise Problem(413, "The body is larger than this service takes.") from None
            raise upstream_problem(error, route.service) from error

    def _onward(self, request: web.Request, client: Client, ctx: RequestContext, now: float) -> Headers:
        headers = onward_headers(request.headers.items(), request.headers.get(hdrs.CONNECTION))
        authorization = request.headers.get(hdrs.AUTHORIZATION)
        if authorization is not None and self.admin.holds(authorization):
            headers = [pair for pair in headers if pair[0].lower() != "authorization"]
        proto = request.headers.get("X-Forwarded-Proto") if client.via_trusted_proxy else None
        headers += ctx.onward(now).items()
        headers += [
            ("X-Forwarded-For", client.address),
            ("X-Forwarded-Proto", "https" if proto == "https" else "http"),
            ("X-Forwarded-Host", request.headers.get(hdrs.HOST, "")),
            ("Via", VIA),
        ]
        return headers


def upstream_problem(error: ExchangeError, service: str) -> Problem:
    """502, 503 or 504, naming the service and nothing of the error."""
    if isinstance(error, UpstreamLate):
        return Problem(504, f"The {service} service did not answer in time.")
    if isinstance(error, UpstreamBusy):
        return unavailable(f"The {service} service is full.", error.retry_after_s or 1.0)
    assert isinstance(error, BadGateway)
    return Problem(502, f"The {service} service cannot be reached or broke off.")


def _refused(
    policy: Policy, decision: Decision, limits: tuple[tuple[str, str], ...], ctx: RequestContext
) -> web.Response:
    headers = dict(limits)
    headers["Retry-After"] = retry_after(decision)
    headers["Content-Type"] = CONTENT_TYPE
    return web.Response(status=429, body=refusal(policy, decision, ctx.request_id), headers=headers)


def _refuse_length(request: web.Request, max_bytes: int) -> None:
    if request.content_length is not None and request.content_length > max_bytes:
        raise Problem(413, "The body is larger than this service takes.", headers={"Connection": "close"})

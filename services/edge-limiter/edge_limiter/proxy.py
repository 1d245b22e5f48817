"""One request through the edge: admin rule, client, limit, upstream, answer. Refuses before it forwards."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from common.problems import CONTENT_TYPE, Problem, unavailable
from common.requests import REQUEST_ID, RequestContext
from edge_limiter.admin import Admin
from edge_limiter.body import BodyTooLarge
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
from edge_limiter.outgoing import Outgoing
from edge_limiter.policies import PolicySet, Rule
from edge_limiter.policy import MAX_LIMIT, Policy
from edge_limiter.ratelimit_headers import rate_limit, refusal, retry_after
from edge_limiter.refusals import Refusals
from edge_limiter.relay import read_whole, request_body, send_answer, too_large
from edge_limiter.request import Request
from edge_limiter.routing import Route, RouteTable, Target
from edge_limiter.wire import date

VIA: Final = "1.1 sluice"
_STORE_RETRY_S: Final = 1.0

Limits = tuple[tuple[str, str], ...]
"""The headers that tell a client its limit."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """What a request needs on its way."""

    routes: RouteTable
    policies: PolicySet
    limiter: Limiter
    clients: Clients
    admin: Admin
    upstreams: Mapping[str, Exchange]
    budgets_s: Mapping[str, float]
    refusals: Refusals
    decided: Callable[[str, bool, str], None]
    max_body_bytes: int
    now: Callable[[], float] = time.monotonic

    async def handle(self, request: Request, route: Route, target: Target, ctx: RequestContext, out: Outgoing) -> int:
        """Answer one request of a service behind the edge. Returns the status; raises Problem before it has begun."""
        if route.needs_admin:
            self.admin.check(request.fields.get("authorization"))
        forwarded_for = request.fields.get("x-forwarded-for")
        client = self.clients.of(request.peer, (forwarded_for,) if forwarded_for is not None else ())
        ctx = self._budget(request, route, ctx)
        rule = self.policies.rule(request.method, target.path, route.policy)
        if rule is not None and rule.denies(client):
            raise Problem(403, "Requests from this address are not taken.")
        if rule is None or rule.allows(client):
            return await self._forward(request, route, target, client, ctx, (), out)
        decision = await self._decide(request, route, rule, client, ctx)
        limits = rate_limit(rule.policy, decision) if decision is not None else ()
        if decision is not None and not decision.allowed and not rule.is_shadow:
            self.refusals.count(429, route.name, rule.policy.name)
            return _refuse(out, rule.policy, decision, limits, ctx)
        try:
            return await self._forward(request, route, target, client, ctx, limits, out)
        except Problem as problem:
            problem.headers.update(limits)
            raise

    def _budget(self, request: Request, route: Route, ctx: RequestContext) -> RequestContext:
        """The door's deadline, or the service's own where the client named none."""
        budget_s = self.budgets_s.get(route.service)
        if budget_s is None or "x-request-timeout-ms" in request.fields:
            return ctx
        return dataclasses.replace(ctx, deadline_s=self.now() + budget_s)

    async def _decide(
        self, request: Request, route: Route, rule: Rule, client: Client, ctx: RequestContext
    ) -> Decision | None:
        """None when a policy that never refuses could not decide."""
        policy, bucket, cost = rule.policy, rule.bucket(client, request.fields), rule.cost
        try:
            decision = self.limiter.denied(policy, bucket, cost) if route.cost != "one" else None
            if decision is None:
                if route.cost != "one":
                    cost *= await self._count(request, route, ctx)
                decision = await self.limiter.decide(policy, bucket, cost)
        except LimiterClosed:
            self.decided(policy.name, False, "closed")
            if rule.is_shadow:
                return None
            raise unavailable("Requests cannot be counted right now.", _STORE_RETRY_S) from None
        except CostAboveLimit:
            if rule.is_shadow:
                return None
            counts = cost if cost <= MAX_LIMIT else f"more than {MAX_LIMIT}"
            raise Problem(
                413,
                f"This request counts {counts} times; the limit is {policy.limit} in {policy.window_s} s: send fewer.",
            ) from None
        self.decided(policy.name, decision.allowed, "shadow" if rule.is_shadow else decision.source)
        return decision

    async def _count(self, request: Request, route: Route, ctx: RequestContext) -> int:
        if request.fields.get("content-encoding", "identity").lower() != "identity":
            raise Problem(415, "A list of texts is counted, so send it without Content-Encoding.")
        body = await read_whole(request, self.max_body_bytes, ctx.remaining_s(self.now()))
        request.body.put_back(body)
        return cost_of(route.cost, body, request.fields.get("inference-header-content-length"))

    async def _forward(
        self,
        request: Request,
        route: Route,
        target: Target,
        client: Client,
        ctx: RequestContext,
        limits: Limits,
        out: Outgoing,
    ) -> int:
        body, framing = await request_body(request, self.max_body_bytes, ctx.remaining_s(self.now()))
        now = self.now()
        headers = self._onward(request, client, ctx, now)
        headers += framing
        exchange = self.upstreams[route.service]
        try:
            async with exchange(request.method, target.path_and_query, headers, body, ctx.remaining_s(now)) as answer:
                back = answer_headers(answer.headers)
                back += (("Via", VIA), (REQUEST_ID, ctx.request_id), *limits)
                await send_answer(out, request.method, answer, back)
                return answer.status
        except BodyTooLarge:
            raise too_large() from None
        except ExchangeError as error:
            raise upstream_problem(error, route.service) from error

    def _onward(self, request: Request, client: Client, ctx: RequestContext, now: float) -> Headers:
        fields = request.fields
        headers = onward_headers(request.headers, fields.get("connection"))
        if "authorization" in fields and self.admin.holds(fields["authorization"]):
            headers = [pair for pair in headers if pair[0].lower() != "authorization"]
        proto = fields.get("x-forwarded-proto") if client.via_trusted_proxy else None
        headers += ctx.onward(now).items()
        headers += (
            ("X-Forwarded-For", client.address),
            ("X-Forwarded-Proto", "https" if proto == "https" else "http"),
            ("X-Forwarded-Host", fields.get("host", "")),
            ("Via", VIA),
        )
        return headers


def upstream_problem(error: ExchangeError, service: str) -> Problem:
    """502, 503 or 504, naming the service and nothing of the error."""
    if isinstance(error, UpstreamLate):
        return Problem(504, f"The {service} service did not answer in time.")
    if isinstance(error, UpstreamBusy):
        return unavailable(f"The {service} service is full.", error.retry_after_s or 1.0)
    assert isinstance(error, BadGateway)
    return Problem(502, f"The {service} service cannot be reached or broke off.")


def _refuse(out: Outgoing, policy: Policy, decision: Decision, limits: Limits, ctx: RequestContext) -> int:
    headers = [
        ("Content-Type", CONTENT_TYPE),
        date(),
        (REQUEST_ID, ctx.request_id),
        ("Retry-After", retry_after(decision)),
        *limits,
    ]
    out.send(429, headers, refusal(policy, decision, ctx.request_id))
    return 429

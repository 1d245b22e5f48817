"""One request through the edge: admin rule, client, limit, upstream, answer. Refuses before it forwards."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from common.http.context import REQUEST_ID, RequestContext, is_timeout
from common.http.problems import CONTENT_TYPE, Problem, unavailable, unsupported_encoding
from edge_limiter.admin import Admin, TokenRequired
from edge_limiter.body import BodyTooLarge, NoRoom
from edge_limiter.cost import cost_of
from edge_limiter.passage import Passage
from edge_limiter.precheck import check_before_charge
from edge_limiter.ratelimit.identity import Client, Clients
from edge_limiter.ratelimit.limiter import CostAboveLimit, Limiter, LimiterUnavailable
from edge_limiter.ratelimit.policy import MAX_LIMIT, Decision, Policy
from edge_limiter.ratelimit.policy_set import PolicySet, Rule
from edge_limiter.ratelimit.shadow import Shadows
from edge_limiter.ratelimit_headers import rate_limit, refusal
from edge_limiter.refusals import Refusals
from edge_limiter.relay import no_room, read_whole, request_body, send_answer, too_large
from edge_limiter.repeats import Refused
from edge_limiter.request import Request
from edge_limiter.routing import Route, RouteTable
from edge_limiter.upstream.client import UpstreamClient
from edge_limiter.upstream.errors import BadGateway, UpstreamError, UpstreamOverloaded, UpstreamTimeout
from edge_limiter.upstream.headers import Headers, forwardable_request_headers, forwardable_response_headers
from edge_limiter.wire import date, response_head

VIA: Final = "1.1 sluice"
_STORE_RETRY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """What a request needs on its way."""

    routes: RouteTable
    policies: PolicySet
    limiter: Limiter
    clients: Clients
    admin: Admin
    wrong_tokens: Rule
    upstreams: Mapping[str, UpstreamClient]
    budgets_s: Mapping[str, float]
    refusals: Refusals
    shadows: Shadows
    decided: Callable[[str, bool, str], None]
    max_body_bytes: int

    def is_refused(self, passage: Passage, route: Route) -> bool:
        """Whether the request was answered with a refusal that nothing had to be waited for. Raises Problem."""
        request = passage.request
        forwarded_for = request.fields.get("x-forwarded-for")
        client = self.clients.of(request.peer, (forwarded_for,) if forwarded_for is not None else ())
        passage.client = client
        if route.needs_admin and self._is_wrong_admin(passage):
            denial = self.limiter.denied(self.wrong_tokens.policy, passage.key, 1)
            return denial is not None and self._refuses(passage, route, self.wrong_tokens, denial)
        check_before_charge(request, route, self.max_body_bytes)
        found = self.policies.find(request.method, passage.target.path, route.policy, client, request.fields)
        passage.shadows = found.shadows
        if found.enforced is None:
            return False
        rule, bucket = found.enforced
        if rule.block and rule.blocks(client):
            raise Problem(403, "Requests from this address are not taken.")
        if rule.exempt and rule.exempts(client):
            return False
        passage.rule = rule
        passage.key = self.limiter.key(rule.policy, bucket)
        denial = self.limiter.denied(rule.policy, passage.key, rule.cost)
        if denial is None:
            return False
        self.shadows.evaluate(passage.shadows, client, 1)  # a list has not been read yet
        return self._refuses(passage, route, rule, denial)

    def _is_wrong_admin(self, passage: Passage) -> bool:
        """Return whether a wrong token has to be counted before the request is refused. Raises NoAdmin.

        A client over the limit of wrong tokens is refused without a comparison, so it cannot go on guessing.
        """
        fields = passage.request.fields
        if not self.admin.token or "authorization" not in fields:
            self.admin.check(fields)
            return False
        key = self.limiter.key(self.wrong_tokens.policy, passage.client.bucket)
        is_locked_out = self.limiter.denied(self.wrong_tokens.policy, key, 1) is not None
        if not is_locked_out and self.admin.holds(fields["authorization"]):
            return False
        passage.rule, passage.key, passage.is_wrong_admin = self.wrong_tokens, key, True
        return True

    async def finish(self, passage: Passage) -> None:
        """Decide what was not refused at once, and forward it. Raises Problem before an answer has begun."""
        route, rule = passage.route, passage.rule
        assert route is not None
        self._budget(passage, route)
        if rule is not None:
            if self._refuses(passage, route, rule, await self._decide(passage, route, rule)):
                return
            if passage.is_wrong_admin:
                raise TokenRequired
        elif passage.shadows:
            await self._only_shadows(passage, route)
        try:
            await self._forward(passage, route)
        except Problem as problem:
            problem.headers.update(passage.limits)
            raise

    def _budget(self, passage: Passage, route: Route) -> None:
        """Set the deadline of the service, unless the client sent one."""
        if route.service in self.budgets_s and not is_timeout(passage.request.fields.get("x-request-timeout-ms", "")):
            passage.ctx = passage.ctx._replace(deadline_s=time.monotonic() + self.budgets_s[route.service])

    def _refuses(self, passage: Passage, route: Route, rule: Rule, decision: Decision) -> bool:
        """Whether this decision is the end of the request: it counts, and tells the client."""
        if decision.allowed:
            self.decided(rule.policy.name, True, decision.source)
            passage.limits = rate_limit(rule.policy, decision)
            return False
        passage.status = 429
        headers, body, lines = self._refusal(route, rule.policy, decision, passage.ctx.request_id)
        passage.out.send(429, headers, body, lines=lines)
        return True

    def refuse_again(self, refused: Refused, request_id: str) -> bytes | None:
        """Refuse a request like one that was refused before: the whole answer; None if it may go by now."""
        rule = refused.rule
        decision = self.limiter.denied(rule.policy, refused.key, rule.cost)
        if decision is None:
            return None
        headers, body, lines = self._refusal(refused.route, rule.policy, decision, request_id)
        return response_head(429, headers, f"Content-Length: {len(body)}\r\n{lines}") + body

    def _refusal(self, route: Route, policy: Policy, decision: Decision, request_id: str) -> tuple[Headers, bytes, str]:
        """Count a refusal: the headers of its answer, the body, and header lines that are made already."""
        self.decided(policy.name, False, decision.source)
        self.refusals.count(429, route.pattern, policy.name)
        told = refusal(policy, decision, is_oip=route.is_oip)
        headers = [("Content-Type", CONTENT_TYPE), date(), (REQUEST_ID, request_id)]
        return headers, told.body(request_id), told.lines

    async def _decide(self, passage: Passage, route: Route, rule: Rule) -> Decision:
        try:
            return await self._ask(passage, route, rule)
        except LimiterUnavailable:
            self.decided(rule.policy.name, False, "closed")
            raise unavailable("Requests cannot be counted right now.", _STORE_RETRY_S) from None

    async def _ask(self, passage: Passage, route: Route, rule: Rule) -> Decision:
        units = await self._units(passage, route) if not passage.is_wrong_admin else 1
        self.shadows.evaluate(passage.shadows, passage.client, units)
        for cost in {rule.cost, rule.cost * units}:  # the first may have become known while the body arrived
            denial = self.limiter.denied(rule.policy, passage.key, cost)
            if denial is not None:
                return denial
        try:
            return await self.limiter.decide(rule.policy, passage.key, rule.cost * units, _left_s(passage))
        except CostAboveLimit as error:
            raise await self._too_dear(passage, rule, error) from None

    async def _only_shadows(self, passage: Passage, route: Route) -> None:
        """Count a request that no rule limits. A packed list counts as one unit, because it is not refused here."""
        coding = passage.request.fields.get("content-encoding", "identity").lower()
        units = await self._units(passage, route) if coding == "identity" else 1
        self.shadows.evaluate(passage.shadows, passage.client, units)

    async def _units(self, passage: Passage, route: Route) -> int:
        """Return how many units the request counts, before the factor of a rule."""
        if route.cost == "one":
            return 1
        body = await self._countable(passage.request, passage.ctx)
        return cost_of(route.cost, body, passage.request.fields.get("inference-header-content-length"))

    async def _too_dear(self, passage: Passage, rule: Rule, error: CostAboveLimit) -> Problem:
        """Why the request can never go. Reading a list above the limit is charged as one: it must not be free."""
        policy = rule.policy
        counts = error.cost if error.cost <= MAX_LIMIT else f"more than {MAX_LIMIT}"
        told = f"This request costs {counts} units; the limit is {policy.limit} in {policy.window_s} s"
        if error.limit < policy.limit:
            return unavailable(f"{told}, of which only {error.limit} are available right now.", _STORE_RETRY_S)
        problem = Problem(413, f"{told}: send fewer texts at once.")
        with suppress(CostAboveLimit):
            decision = await self.limiter.decide(policy, passage.key, rule.cost, _left_s(passage))
            self.decided(policy.name, decision.allowed, decision.source)
            problem.headers.update(rate_limit(policy, decision))
        return problem

    async def _countable(self, request: Request, ctx: RequestContext) -> bytes:
        """The whole body, which is read a second time when it is sent on."""
        if request.fields.get("content-encoding", "identity").lower() != "identity":
            raise unsupported_encoding("identity", "A list of texts is counted, so send it without Content-Encoding.")
        body = await read_whole(request, self.max_body_bytes, ctx.remaining_s(time.monotonic()))
        request.body.put_back(body)
        return body

    async def _forward(self, passage: Passage, route: Route) -> None:
        request, ctx = passage.request, passage.ctx
        body, framing = await request_body(request, self.max_body_bytes, ctx.remaining_s(time.monotonic()))
        now = time.monotonic()
        headers = self._onward(request, passage.client, ctx, now)
        headers += framing
        upstream, target = self.upstreams[route.service], passage.target.path_and_query
        try:
            with await upstream(request.method, target, headers, body, ctx.remaining_s(now)) as answer:
                back = forwardable_response_headers(answer.headers)
                back += (("Via", VIA), (REQUEST_ID, ctx.request_id), *passage.limits)
                await send_answer(passage.out, request.method, answer, back)
                passage.status = answer.status
        except BodyTooLarge:
            raise too_large() from None
        except NoRoom:
            raise no_room() from None
        except UpstreamError as error:
            raise upstream_problem(error, route.service) from error

    def _onward(self, request: Request, client: Client, ctx: RequestContext, now: float) -> Headers:
        fields = request.fields
        headers = forwardable_request_headers(request.headers, fields.get("connection"))
        if "authorization" in fields and self.admin.holds(fields["authorization"]):
            headers = [pair for pair in headers if pair[0].lower() != "authorization"]
        proto = fields.get("x-forwarded-proto") if client.via_trusted_proxy else None
        headers += ctx.outgoing_headers(now).items()
        headers += (
            ("X-Forwarded-For", client.address),
            ("X-Forwarded-Proto", "https" if proto == "https" else "http"),
            ("X-Forwarded-Host", fields.get("host", "")),
            ("Via", VIA),
        )
        return headers


def _left_s(passage: Passage) -> float:
    return passage.ctx.remaining_s(time.monotonic())


def upstream_problem(error: UpstreamError, service: str) -> Problem:
    """502, 503 or 504, naming the service and nothing of the error."""
    if isinstance(error, UpstreamTimeout):
        return Problem(504, f"The {service} service did not answer in time.")
    if isinstance(error, UpstreamOverloaded):
        return unavailable(f"The {service} service is full.", 1.0)
    assert isinstance(error, BadGateway)
    return Problem(502, f"The {service} service cannot be reached or broke off.")

"""Charges a request to its client's limit, or refuses it. Cheap checks come before the charge."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from common.http.problems import Problem, unavailable, unsupported_encoding
from edge_limiter.proxy.admin import Admin, TokenRequired
from edge_limiter.proxy.cost import cost_of
from edge_limiter.proxy.forward import Forwarder
from edge_limiter.proxy.precheck import check_before_charge
from edge_limiter.proxy.rejections import Refusals
from edge_limiter.proxy.responses import RETRY_S, rate_limit_headers, refusal, send_refusal
from edge_limiter.proxy.state import RequestState
from edge_limiter.ratelimit.identity import Client, Clients
from edge_limiter.ratelimit.limiter import CostAboveLimit, Limiter, LimiterUnavailable
from edge_limiter.ratelimit.policy import MAX_LIMIT, Decision
from edge_limiter.ratelimit.policy_set import PolicySet, Rule
from edge_limiter.ratelimit.shadow import Shadows
from edge_limiter.server.request import Request


@dataclass(frozen=True, slots=True)
class Enforcer:
    """`wrong_tokens` limits guesses of the admin token. `decided` counts a decision by policy, outcome and source."""

    policies: PolicySet
    limiter: Limiter
    clients: Clients
    admin: Admin
    wrong_tokens: Rule
    shadows: Shadows
    rejections: Refusals
    decided: Callable[[str, bool, str], None]
    forwarder: Forwarder

    async def admits(self, state: RequestState) -> bool:
        """Whether the request may be forwarded; otherwise a 429 was sent. Raises Problem and NoAdmin."""
        request, route = state.request, state.route
        state.client = client = self._client_of(request)
        if route.needs_admin and not await self._admits_admin(state):
            return False
        if not state.units:  # a gateway sends no body, and checks that itself
            check_before_charge(request, route, self.forwarder.max_body_bytes)
        enforced, state.shadows = self.policies.find(
            request.method, state.target.path, route.policy, client, request.fields
        )
        if enforced is not None and enforced.rule.block and enforced.rule.blocks(client):
            raise Problem(403, "Requests from this address are not taken.")
        if enforced is None or (enforced.rule.exempt and enforced.rule.exempts(client)):
            await self._count_in_shadow(state)
            return True
        rule, bucket = enforced
        key = self.limiter.key(rule.policy, bucket)
        known = self.limiter.denied(rule.policy, key, rule.cost)
        if known is None:
            return self._concludes(state, rule, await self._decide(state, rule, key))
        if state.shadows:
            self.shadows.evaluate(state.shadows, client, 1)  # a list has not been read yet
        return self._concludes(state, rule, known)

    def _client_of(self, request: Request) -> Client:
        forwarded_for = request.fields.get("x-forwarded-for")
        return self.clients.of(request.peer, () if forwarded_for is None else (forwarded_for,))

    async def _admits_admin(self, state: RequestState) -> bool:
        """Whether the client is an administrator; False if it guessed too often and was sent a 429. Raises NoAdmin.

        A client over the limit of wrong tokens is refused without a comparison, so it cannot go on guessing.
        """
        fields = state.request.fields
        if not self.admin.token or "authorization" not in fields:
            self.admin.check(fields)
            return True
        rule = self.wrong_tokens
        key = self.limiter.key(rule.policy, state.client.bucket)
        decision = self.limiter.denied(rule.policy, key, 1)
        if decision is None:
            if self.admin.holds(fields["authorization"]):
                return True
            decision = await self._charge(state, rule, key, 1)
        if self._concludes(state, rule, decision):
            raise TokenRequired
        return False

    def _concludes(self, state: RequestState, rule: Rule, decision: Decision) -> bool:
        """Record a decision, and send the 429 if it is a refusal. Return whether the request goes on."""
        policy = rule.policy
        self.decided(policy.name, decision.allowed, decision.source)
        if decision.allowed:
            state.limit_headers = rate_limit_headers(policy, decision)
            return True
        state.status = 429
        self.rejections.count(429, state.route.pattern, policy.name)
        refused = refusal(policy, decision, is_oip=state.route.is_oip)
        send_refusal(state.response, refused, state.ctx.request_id)
        return False

    async def _decide(self, state: RequestState, rule: Rule, key: bytes) -> Decision:
        units = state.units or (1 if state.route.cost == "one" else await self._units(state))
        if state.shadows:
            self.shadows.evaluate(state.shadows, state.client, units)
        if units > 1 or state.route.cost != "one":
            for cost in {rule.cost, rule.cost * units}:  # the first may have become known while the body arrived
                if (known := self.limiter.denied(rule.policy, key, cost)) is not None:
                    return known
        try:
            return await self._charge(state, rule, key, rule.cost * units)
        except CostAboveLimit as error:
            raise await self._cost_exceeds_limit(state, rule, key, error) from None

    async def _charge(self, state: RequestState, rule: Rule, key: bytes, cost: int) -> Decision:
        try:
            return await self.limiter.decide(rule.policy, key, cost, state.ctx.remaining_s(time.monotonic()))
        except LimiterUnavailable:
            self.decided(rule.policy.name, False, "closed")
            raise unavailable("Requests cannot be counted right now.", RETRY_S) from None

    async def _count_in_shadow(self, state: RequestState) -> None:
        """Count a request that no rule limits. A compressed list counts as one unit, because it is not refused here."""
        if state.shadows:
            coding = state.request.fields.get("content-encoding", "identity").lower()
            is_counted = not state.units and state.route.cost != "one" and coding == "identity"
            units = await self._units(state) if is_counted else max(1, state.units)
            self.shadows.evaluate(state.shadows, state.client, units)

    async def _units(self, state: RequestState) -> int:
        """Return how many texts a request has. Raises Problem if its body cannot be read here."""
        fields = state.request.fields
        if fields.get("content-encoding", "identity").lower() != "identity":
            raise unsupported_encoding("identity", "A list of texts is counted, so send it without Content-Encoding.")
        body = await self.forwarder.read(state.request, state.ctx.remaining_s(time.monotonic()))
        return cost_of(state.route.cost, body, fields.get("inference-header-content-length"))

    async def _cost_exceeds_limit(self, state: RequestState, rule: Rule, key: bytes, error: CostAboveLimit) -> Problem:
        """Return why the request can never pass. Counting its texts is charged as one unit: it must not be free."""
        policy = rule.policy
        units = error.cost if error.cost <= MAX_LIMIT else f"more than {MAX_LIMIT}"
        detail = f"This request costs {units} units; the limit is {policy.limit} in {policy.window_s} s"
        if error.limit < policy.limit:
            return unavailable(f"{detail}, of which only {error.limit} are available right now.", RETRY_S)
        problem = Problem(413, f"{detail}: send fewer texts at once.")
        with suppress(CostAboveLimit):
            decision = await self._charge(state, rule, key, rule.cost)
            self.decided(policy.name, decision.allowed, decision.source)
            problem.headers.update(rate_limit_headers(policy, decision))
        return problem

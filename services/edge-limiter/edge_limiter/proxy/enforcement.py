"""Charges a request to its client's limit, or refuses it. Cheap checks come before the charge."""

import collections
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Counter

from common.http.problems import Problem, check_content_encoding, unavailable, unsupported_encoding
from common.http.ratelimit import Limit, rate_limit_headers, whole_seconds
from edge_limiter.proxy.admin import Admin, wrong_token
from edge_limiter.proxy.cost import cost_of
from edge_limiter.proxy.forward import MAX_BODY_BYTES, read_body
from edge_limiter.proxy.rejections import RejectionCounters
from edge_limiter.proxy.responses import RETRY_S, send_refusal, too_large
from edge_limiter.proxy.routes import Route
from edge_limiter.proxy.state import RequestState
from edge_limiter.ratelimit.identity import Clients
from edge_limiter.ratelimit.limiter import Limiter, LimiterUnavailable
from edge_limiter.ratelimit.policy import MAX_LIMIT, Decision, Policy
from edge_limiter.ratelimit.policy_set import PolicySet, Rule
from edge_limiter.ratelimit.shadow import Shadows
from edge_limiter.server.request import Request

_WRITES: Final = frozenset({"POST", "PUT", "PATCH"})
_FORMS: Final = frozenset({"", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
"""Content types that a browser sends to another site without a preflight request, as it does without any."""
_MAYBE_JSON: Final = frozenset({"application/json", "application/octet-stream", ""})
"""With the last two the client names no type, so the service decides."""
_BROWSER: Final = frozenset({"origin", "sec-fetch-site"})


@dataclass(frozen=True, slots=True)
class Enforcer:
    """`wrong_tokens` limits guesses of the admin token; `guesses` are those of each client that are being counted.

    `decisions` returns the counter of decisions with a policy, an outcome and a source.
    """

    policies: PolicySet
    limiter: Limiter
    clients: Clients
    admin: Admin
    wrong_tokens: Rule
    shadows: Shadows
    rejections: RejectionCounters
    decisions: Callable[[str, str, str], Counter]
    guesses: "collections.Counter[bytes]" = field(default_factory=collections.Counter)

    async def admits(self, state: RequestState) -> bool:
        """Whether the request may be forwarded; otherwise a 429 was sent. Raises Problem."""
        request, route = state.request, state.route
        state.client = client = self.clients.of(request.peer, request.fields.get("x-forwarded-for", ""))
        if route.needs_admin and not await self._admits_admin(state):
            return False
        if not state.units:  # a gateway sends no body, and checks that itself
            _check_before_charge(request, route)
        enforced, state.shadows = self.policies.find(
            request.method, state.target.path, route.policy, client, request.fields
        )
        if enforced is not None and enforced.rule.blocks(client):
            raise Problem(403, "Requests from this address are blocked.")
        if enforced is None or enforced.rule.exempts(client):
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

    async def _admits_admin(self, state: RequestState) -> bool:
        """Whether the client is an administrator; False if it guessed too often and was sent a 429. Raises NoAdmin.

        A client over the limit of wrong tokens is refused even with the right one, so it cannot go on guessing. While
        a wrong token of the client is being counted, the right one counts as a guess, too.
        """
        fields = state.request.fields
        if not self.admin.token or "authorization" not in fields:
            self.admin.check(fields)
            return True
        rule = self.wrong_tokens
        key = self.limiter.key(rule.policy, state.client.bucket)
        decision = self.limiter.denied(rule.policy, key, 1)
        if decision is None:
            is_right = self.admin.holds(fields["authorization"])
            if is_right and key not in self.guesses:
                return True
            decision = await self._charge(state, rule, key, 1) if is_right else await self._guess(state, rule, key)
        if not self._concludes(state, rule, decision):
            return False
        if not self.admin.holds(fields["authorization"]):
            raise wrong_token()
        return True

    async def _guess(self, state: RequestState, rule: Rule, key: bytes) -> Decision:
        self.guesses[key] += 1
        try:
            return await self._charge(state, rule, key, 1)
        finally:
            self.guesses[key] -= 1
            if not self.guesses[key]:
                del self.guesses[key]

    def _concludes(self, state: RequestState, rule: Rule, decision: Decision) -> bool:
        """Record a decision, and send the 429 if it is a refusal. Return whether the request goes on."""
        policy = rule.policy
        self.decisions(policy.name, "allowed" if decision.allowed else "refused", decision.source).inc()
        limit = _limit(policy, decision)
        if decision.allowed:
            state.limit_headers = rate_limit_headers(limit)
            return True
        state.status = 429
        self.rejections.count(429, state.route.pattern, policy.name, state.client.address)
        send_refusal(state.response, limit, state.ctx.request_id, is_oip=state.route.is_oip)
        return False

    async def _decide(self, state: RequestState, rule: Rule, key: bytes) -> Decision:
        units = state.units or (1 if state.route.cost == "one" else await self._units(state))
        if state.shadows:
            self.shadows.evaluate(state.shadows, state.client, units)
        if units > 1 or state.route.cost != "one":
            for cost in {rule.cost, rule.cost * units}:  # the first may have become known while the body arrived
                if (known := self.limiter.denied(rule.policy, key, cost)) is not None:
                    return known
        if rule.cost * units > rule.policy.limit:
            raise await self._cost_exceeds_limit(state, rule, key, rule.cost * units)
        return await self._charge(state, rule, key, rule.cost * units)

    async def _charge(self, state: RequestState, rule: Rule, key: bytes, cost: int) -> Decision:
        try:
            return await self.limiter.decide(rule.policy, key, cost, state.ctx.remaining_s(time.monotonic()))
        except LimiterUnavailable:
            self.decisions(rule.policy.name, "refused", "closed").inc()
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
        body = await read_body(state.request, state.ctx.remaining_s(time.monotonic()))
        return cost_of(state.route.cost, body, fields.get("inference-header-content-length"))

    async def _cost_exceeds_limit(self, state: RequestState, rule: Rule, key: bytes, cost: int) -> Problem:
        """Return why the request can never pass. Counting its texts is charged as one unit: it must not be free."""
        policy = rule.policy
        units = cost if cost <= MAX_LIMIT else f"more than {MAX_LIMIT}"
        limit = f"the limit is {policy.limit} in {policy.window_s} s"
        decision = await self._charge(state, rule, key, rule.cost)
        self.decisions(policy.name, "allowed" if decision.allowed else "refused", decision.source).inc()
        return Problem(
            413,
            f"This request costs {units} units; {limit}: send fewer texts at once.",
            headers=dict(rate_limit_headers(_limit(policy, decision))),
        )


def _check_before_charge(request: Request, route: Route) -> None:
    """Raise Problem 413 or 415 for what the head alone shows to be wrong.

    If such a request were charged, any web page could spend its visitors' limit by submitting a form.
    """
    fields = request.fields
    if "content-encoding" in fields:
        check_content_encoding(fields["content-encoding"])
    if request.length is not None and request.length > MAX_BODY_BYTES:
        raise too_large()
    if fields.get("content-type") == "application/json":
        return
    if request.method in _WRITES and route.policy is not None and not _is_acceptable(fields, route):
        raise Problem(415, "Send application/json.")


def _is_acceptable(fields: Mapping[str, str], route: Route) -> bool:
    """Only the Open Inference Protocol has other types; its clients may send any, unless they are web pages."""
    media_type = fields.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in _FORMS and not _BROWSER.isdisjoint(fields):
        return False
    return route.is_oip or media_type in _MAYBE_JSON


def _limit(policy: Policy, decision: Decision) -> Limit:
    return Limit(policy.name, policy.limit, policy.window_s, decision.remaining, whole_seconds(decision.reset_s))

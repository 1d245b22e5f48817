"""Evaluate shadow rules: count what they would refuse, without affecting any response."""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial

from prometheus_client import Counter

from edge_limiter.ratelimit.identity import Client
from edge_limiter.ratelimit.limiter import Limiter
from edge_limiter.ratelimit.policy import Decision, Policy
from edge_limiter.ratelimit.policy_set import Counted


class Shadows:
    """Decides while the request goes on. `decisions` returns the counter with a policy, an outcome and a source."""

    def __init__(self, limiter: Limiter, decisions: Callable[[str, str, str], Counter]) -> None:
        self._limiter = limiter
        self._decisions = decisions

    def evaluate(self, shadows: Iterable[Counted], client: Client, units: int) -> None:
        """Charge a request of `units` to each shadow rule."""
        for rule, bucket in shadows:
            policy, cost = rule.policy, rule.cost * units
            if rule.exempts(client):
                continue
            key = self._limiter.key(policy, bucket)
            if rule.blocks(client) or cost > policy.limit or self._limiter.denied(policy, key, cost) is not None:
                self._count(policy, allowed=False)
            elif (decision := self._limiter.try_out(policy, key, cost)) is not None:
                decision.add_done_callback(partial(self._on_decision, policy))

    def _on_decision(self, policy: Policy, decision: asyncio.Future[Decision]) -> None:
        if not decision.cancelled() and decision.exception() is None:
            self._count(policy, allowed=decision.result().allowed)

    def _count(self, policy: Policy, *, allowed: bool) -> None:
        self._decisions(policy.name, "allowed" if allowed else "refused", "shadow").inc()

"""Evaluate shadow rules: count what they would refuse, without affecting any response."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from prometheus_client import Counter

from common.runtime import tasks
from edge_limiter.ratelimit.identity import Client
from edge_limiter.ratelimit.limiter import CostAboveLimit, Limiter, LimiterUnavailable
from edge_limiter.ratelimit.policy import Policy
from edge_limiter.ratelimit.policy_set import Counted

TIMEOUT_S: Final = 1.0
MAX_PENDING: Final = 1_024
"""Shadow decisions waiting for the store; more are skipped, so that they cannot fill the limiter's queue."""


class Shadows:
    """Decides in the background. `decisions` returns the counter with a policy, an outcome and a source."""

    def __init__(self, limiter: Limiter, decisions: Callable[[str, str, str], Counter]) -> None:
        self._limiter = limiter
        self._decisions = decisions
        self._pending: set[asyncio.Task[None]] = set()

    def evaluate(self, shadows: Iterable[Counted], client: Client, units: int) -> None:
        """Charge a request of `units` to each shadow rule."""
        for rule, bucket in shadows:
            policy, cost = rule.policy, rule.cost * units
            if rule.blocks(client) or (cost > policy.limit and not rule.exempts(client)):
                self._count(policy, allowed=False)
            elif not rule.exempts(client):
                self._charge(policy, self._limiter.key(policy, bucket), cost)

    async def close(self) -> None:
        """Drop the decisions that are still pending."""
        for task in list(self._pending):
            await tasks.cancel_and_wait(task)

    def _charge(self, policy: Policy, key: bytes, cost: int) -> None:
        if self._limiter.denied(policy, key, cost) is not None:
            self._count(policy, allowed=False)
        elif len(self._pending) < MAX_PENDING:
            task = asyncio.create_task(self._decide(policy, key, cost), name="shadow decision")
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)

    async def _decide(self, policy: Policy, key: bytes, cost: int) -> None:
        with suppress(LimiterUnavailable, CostAboveLimit):  # the store is down
            decision = await self._limiter.decide(policy, key, cost, TIMEOUT_S)
            self._count(policy, allowed=decision.allowed)

    def _count(self, policy: Policy, *, allowed: bool) -> None:
        self._decisions(policy.name, "allowed" if allowed else "refused", "shadow").inc()

"""Decides whether a request may go: deny cache, then the exact log in the store, then what its policy says instead.

Promise: never more than `limit` units admitted in any `window_s` seconds, on any number of replicas, and never a
refusal while the request would fit; a changed window begins anew. While the store is away a policy decides locally,
lets pass or closes.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from edge_limiter.deny_cache import Denial, DenyCache
from edge_limiter.lane import Answer, Lane, Store, StoreUnavailable
from edge_limiter.local_log import LocalLog
from edge_limiter.policy import Policy

Source = Literal["store", "denied", "local", "open"]


class LimiterClosed(Exception):
    """The store is away and the policy says to refuse meanwhile: not the client's fault, so never a 429."""


class CostAboveLimit(Exception):
    """One request costs more than a whole window takes: waiting would not help.

    `at_most` is the limit, or this process's share of it while the store is away.
    """

    def __init__(self, cost: int, at_most: int) -> None:
        super().__init__(f"{cost} of {at_most}")
        self.cost = cost
        self.at_most = at_most


class Decision(NamedTuple):
    """`reset_s`: seconds until such a request fits again; when it was allowed, at most that."""

    allowed: bool
    remaining: int
    reset_s: float
    source: Source


@dataclass(frozen=True, slots=True)
class LimiterOptions:
    """Sizes and times of one limiter. `hash_key` must be equal on all replicas: rows hold no plain addresses."""

    timeout_s: float = 0.1
    batch_keys: int = 128
    remembered_keys: int = 100_000
    hash_key: bytes = b""


class Limiter:
    """One per process. `stores` are connections to the same log: a key always uses the same one."""

    def __init__(
        self,
        stores: Sequence[Store],
        options: LimiterOptions = LimiterOptions(),  # frozen
        *,
        now: Callable[[], float] = time.monotonic,
        replicas: Callable[[], int] = lambda: 1,
        on_batch: Callable[[int, float], None] = lambda keys, seconds: None,
    ) -> None:
        self._lanes = [
            Lane(store, timeout_s=options.timeout_s, batch_keys=options.batch_keys, now=now, on_batch=on_batch)
            for store in stores
        ]
        self._now = now
        self._replicas = replicas
        self._denied = DenyCache(options.remembered_keys)
        self._own = LocalLog(options.remembered_keys)
        self._hash_key = hashlib.sha256(options.hash_key).digest() if options.hash_key else b""

    async def run(self) -> None:
        """Serve decisions until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            for lane in self._lanes:
                lanes.create_task(lane.run(), name="limiter lane")

    def key(self, policy: Policy, bucket: bytes) -> bytes:
        """Under which a client's admissions are kept: a (keyed) hash, never its address.

        Each window has its own: while a change of it reaches one replica after the other, the shorter would forget
        what the longer still counts.
        """
        told = b"%b\0%d\0%b" % (policy.name.encode(), policy.window_s, bucket)
        return hashlib.blake2b(told, digest_size=16, key=self._hash_key).digest()

    def denied(self, policy: Policy, key: bytes, cost: int) -> Decision | None:
        """The refusal that is known already: nothing has to be waited for, nor read how much more a request costs."""
        now = self._now()
        denial = self._denied.get((policy.version, key, cost), now)
        return None if denial is None else Decision(False, 0, denial.free_at_s - now, "denied")

    async def decide(self, policy: Policy, key: bytes, cost: int = 1) -> Decision:
        """Charge `cost` units to the client, whole or not at all; ask `denied` before: here the store is asked.

        Raises LimiterClosed and CostAboveLimit.
        """
        if cost > policy.limit:
            raise CostAboveLimit(cost, policy.limit)
        try:
            answer = await self._lanes[key[0] % len(self._lanes)].ask(policy, key, cost)
        except StoreUnavailable:
            return self._without_store(policy, key, cost)
        self._remember(policy, key, cost, answer)
        return Decision(answer.allowed, answer.remaining, answer.reset_s, "store")

    def _remember(self, policy: Policy, key: bytes, cost: int, answer: Answer) -> None:
        now = self._now()
        if answer.allowed:
            self._own.record(key, cost, policy.window_s, now)
        else:
            denial = Denial(answer.asked_s + answer.reset_s, now + answer.reset_s)
            self._denied.put((policy.version, key, cost), denial)

    def _without_store(self, policy: Policy, key: bytes, cost: int) -> Decision:
        if policy.on_store_error == "closed":
            raise LimiterClosed
        now = self._now()
        if policy.on_store_error == "open":
            self._own.record(key, cost, policy.window_s, now)
            return Decision(True, policy.limit, 0.0, "open")
        share = -(-policy.limit // max(1, self._replicas()))
        if cost > share:
            raise CostAboveLimit(cost, share)
        verdict = self._own.decide(key, cost, share, policy.window_s, now)
        return Decision(verdict.allowed, verdict.remaining, verdict.reset_s, "local")

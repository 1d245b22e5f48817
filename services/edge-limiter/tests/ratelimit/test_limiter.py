import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from edge_limiter.ratelimit.batcher import Query, QueryResult, StoreUnavailable
from edge_limiter.ratelimit.limiter import (
    DenyCache,
    InMemorySlidingLog,
    Limiter,
    LimiterUnavailable,
)
from edge_limiter.ratelimit.policy import Decision, Policy

POLICY = Policy("predict", 5, 60)
KEY = b"client"


class MemoryStore:
    """An exact store in memory, on the test's clock; `is_failing` makes it raise."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.is_up = True
        self.is_failing = False
        self.statements = 0
        self._now = now
        self._log = InMemorySlidingLog(1_000)

    async def decide(self, queries: Sequence[Query]) -> list[QueryResult]:
        self.statements += 1
        if self.is_failing:
            raise StoreUnavailable
        return [self._result(query) for query in queries]

    def _result(self, query: Query) -> QueryResult:
        decisions = [
            self._log.decide(query.key, query.cost, query.limit, query.window_s, self._now())
            for _ in range(query.requests)
        ]
        return QueryResult(sum(d.allowed for d in decisions), decisions[-1].remaining, decisions[-1].reset_s)


class World:
    """A limiter on a clock that the test moves."""

    def __init__(self, replicas: int = 1) -> None:
        self.now = 1_000.0
        self.replicas = replicas
        self.store = MemoryStore(lambda: self.now)
        self.limiter = Limiter(self.store, now=lambda: self.now, replicas=lambda: self.replicas)

    async def decide(self, policy: Policy = POLICY, bucket: bytes = b"client", cost: int = 1) -> Decision:
        key = self.limiter.key(policy, bucket)
        return self.limiter.denied(policy, key, cost) or await self.limiter.decide(policy, key, cost, 60)

    async def admitted(self, requests: int, policy: Policy = POLICY) -> int:
        return sum([(await self.decide(policy)).allowed for _ in range(requests)])


@asynccontextmanager
async def world(replicas: int = 1) -> AsyncIterator[World]:
    made = World(replicas)
    task = asyncio.create_task(made.limiter.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_burst_above_limit__is_refused() -> None:
    async with world() as w:
        decisions = await asyncio.gather(*(w.decide() for _ in range(9)))
    assert [d.allowed for d in decisions] == [True] * 5 + [False] * 4
    assert [d.remaining for d in decisions] == [4, 3, 2, 1, 0, 0, 0, 0, 0]
    assert decisions[-1].reset_s == 60.0


async def test_flood_after_a_refusal__costs_no_statement_until_a_slot_frees() -> None:
    async with world() as w:
        await w.admitted(6)
        statements = w.store.statements
        for _ in range(100):
            w.now += 0.5
            decision = await w.decide()
            assert (decision.allowed, decision.source) == (False, "denied")
        assert w.store.statements == statements
        w.now += 10.0
        assert (await w.decide()).allowed


async def test_changed_policy__ignores_refusals_of_the_old_one() -> None:
    async with world() as w:
        await w.admitted(6)
        assert (await w.decide(Policy("predict", 6, 60))).allowed


async def test_expensive_request_that_does_not_fit__leaves_capacity_for_a_cheap_one() -> None:
    async with world() as w:
        assert (await w.decide(cost=3)).allowed
        assert not (await w.decide(cost=3)).allowed
        assert (await w.decide(cost=2)).allowed
        assert not (await w.decide()).allowed


async def test_clients_and_policies__are_counted_separately() -> None:
    async with world() as w:
        await w.admitted(6)
        assert (await w.decide(bucket=b"another")).allowed
        assert (await w.decide(Policy("analyze", 5, 60))).allowed


async def test_client_that_disconnects__is_not_taken_for_a_refused_one() -> None:
    async with world() as w:
        key = w.limiter.key(POLICY, KEY)
        leaving = asyncio.create_task(w.limiter.decide(POLICY, key, 1, 60))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert w.limiter.denied(POLICY, key, 1) is None
        assert await w.admitted(5) >= 4


def test_keys__hide_the_address_and_depend_on_the_hash_key() -> None:
    plain, keyed = World().limiter, Limiter(MemoryStore(lambda: 0.0), hash_key=b"k")
    assert b"client" not in plain.key(POLICY, b"client")
    assert plain.key(POLICY, b"client") != keyed.key(POLICY, b"client")
    assert plain.key(POLICY, b"client") == World().limiter.key(POLICY, b"client")


def test_key__depends_on_the_window_but_not_on_the_limit() -> None:
    limiter = World().limiter
    assert limiter.key(Policy("predict", 5, 60), b"client") != limiter.key(Policy("predict", 5, 1), b"client")
    assert limiter.key(Policy("predict", 5, 60), b"client") == limiter.key(Policy("predict", 6, 60), b"client")


async def test_store_down__local_decisions_continue_from_own_admissions() -> None:
    async with world() as w:
        assert await w.admitted(3) == 3
        w.store.is_failing = True
        assert await w.admitted(5) == 2
        assert (await w.decide()).source == "local"


async def test_store_down__each_replica_admits_its_share_rounded_up() -> None:
    async with world(replicas=3) as w:
        w.store.is_failing = True
        assert await w.admitted(5) == 2


async def test_store_down__cost_above_the_share_is_an_error() -> None:
    async with world(replicas=3) as w:
        w.store.is_failing = True
        with pytest.raises(LimiterUnavailable):
            await w.decide(cost=3)
        assert (await w.decide(cost=2)).allowed


async def test_store_recovers__decides_again() -> None:
    async with world() as w:
        w.store.is_up = False
        assert (await w.decide()).source == "local"
        w.store.is_up = True
        assert (await w.decide()).source == "store"


async def test_store_down_and_policy_open__everything_passes() -> None:
    async with world() as w:
        w.store.is_failing = True
        policy = Policy("predict", 5, 60, "open")
        assert await w.admitted(9, policy) == 9
        assert (await w.decide(policy)).source == "open"


async def test_requests_passed_by_an_open_policy__count_in_local_decisions() -> None:
    async with world() as w:
        w.store.is_failing = True
        assert await w.admitted(3, Policy("predict", 5, 60, "open")) == 3
        assert await w.admitted(5) == 2


async def test_store_down_and_policy_closed__raises() -> None:
    async with world() as w:
        w.store.is_failing = True
        with pytest.raises(LimiterUnavailable):
            await w.decide(Policy("predict", 5, 60, "closed"))


def test_deny_cache__refusal_holds_until_a_slot_frees_and_no_longer() -> None:
    cache = DenyCache(10)
    cache.put(POLICY, KEY, 1, holds_until=5.0, free_at=5.5)
    assert cache.get(POLICY, KEY, 1, 4.5) == Decision(False, 0, 1.0, "denied")
    assert cache.get(POLICY, KEY, 1, 5.0) is None
    assert len(cache) == 0


def test_deny_cache__another_limit_or_cost_is_not_refused() -> None:
    cache = DenyCache(10)
    cache.put(POLICY, KEY, 1, 5.0, 5.0)
    assert cache.get(Policy("predict", 6, 60), KEY, 1, 0.0) is None
    assert cache.get(POLICY, KEY, 2, 0.0) is None


def test_deny_cache__when_full_drops_the_least_recently_used() -> None:
    cache = DenyCache(2)
    cache.put(POLICY, b"a", 1, 9.0, 9.0)
    cache.put(POLICY, b"b", 1, 9.0, 9.0)
    cache.get(POLICY, b"a", 1, 0.0)
    cache.put(POLICY, b"c", 1, 9.0, 9.0)
    assert cache.get(POLICY, b"a", 1, 0.0)
    assert cache.get(POLICY, b"b", 1, 0.0) is None

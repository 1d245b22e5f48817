import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from edge_limiter.lane import Ask, StoreUnavailable, Verdict
from edge_limiter.limiter import CostAboveLimit, Decision, Limiter, LimiterClosed, LimiterOptions
from edge_limiter.local_log import LocalLog
from edge_limiter.policy import Policy

POLICY = Policy("predict", 5, 60)


class MemoryStore:
    """An exact store in memory, on the test's clock; `is_failing` makes it answer nothing."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.is_up = True
        self.is_failing = False
        self.statements = 0
        self._now = now
        self._log = LocalLog(1_000)

    async def decide(self, asks: Sequence[Ask], timeout_s: float) -> list[Verdict]:
        self.statements += 1
        if self.is_failing:
            raise StoreUnavailable
        return [self._verdict(ask) for ask in asks]

    def _verdict(self, ask: Ask) -> Verdict:
        verdicts = [
            self._log.decide(ask.key, ask.cost, ask.limit, ask.window_s, self._now()) for _ in range(ask.requests)
        ]
        return Verdict(sum(v.allowed for v in verdicts), verdicts[-1].remaining, verdicts[-1].reset_s)


class World:
    """A limiter on a clock that the test moves."""

    def __init__(self, replicas: int = 1) -> None:
        self.now = 1_000.0
        self.replicas = replicas
        self.store = MemoryStore(lambda: self.now)
        self.limiter = Limiter([self.store], LimiterOptions(), now=lambda: self.now, replicas=lambda: self.replicas)

    async def decide(self, policy: Policy = POLICY, bucket: bytes = b"client", cost: int = 1) -> Decision:
        key = self.limiter.key(policy, bucket)
        return self.limiter.denied(policy, key, cost) or await self.limiter.decide(policy, key, cost)

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


async def test_flood_after_a_refusal__asks_the_store_nothing_until_a_slot_frees() -> None:
    async with world() as w:
        await w.admitted(6)
        asked = w.store.statements
        for _ in range(100):
            w.now += 0.5
            decision = await w.decide()
            assert (decision.allowed, decision.source) == (False, "denied")
        assert w.store.statements == asked
        w.now += 10.0
        assert (await w.decide()).allowed


async def test_changed_policy__is_asked_anew() -> None:
    async with world() as w:
        await w.admitted(6)
        assert (await w.decide(Policy("predict", 6, 60, version=2))).allowed


async def test_dear_request_that_does_not_fit__leaves_room_for_a_cheap_one() -> None:
    async with world() as w:
        assert (await w.decide(cost=3)).allowed
        assert not (await w.decide(cost=3)).allowed
        assert (await w.decide(cost=2)).allowed
        assert not (await w.decide()).allowed


async def test_request_dearer_than_the_limit__is_an_error_of_its_own() -> None:
    async with world() as w:
        with pytest.raises(CostAboveLimit):
            await w.decide(cost=6)
        assert w.store.statements == 0


async def test_clients_and_policies__are_counted_apart() -> None:
    async with world() as w:
        await w.admitted(6)
        assert (await w.decide(bucket=b"another")).allowed
        assert (await w.decide(Policy("analyze", 5, 60))).allowed


async def test_keys__hide_the_address_and_depend_on_the_hash_key() -> None:
    plain, keyed = Limiter([]), Limiter([], LimiterOptions(hash_key=b"k"))
    assert b"client" not in plain.key(POLICY, b"client")
    assert plain.key(POLICY, b"client") != keyed.key(POLICY, b"client")
    assert plain.key(POLICY, b"client") == Limiter([]).key(POLICY, b"client")


async def test_store_away__local_decisions_go_on_from_this_process_own_admissions() -> None:
    async with world() as w:
        assert await w.admitted(3) == 3
        w.store.is_failing = True
        assert await w.admitted(5) == 2
        assert (await w.decide()).source == "local"


async def test_store_away__each_replica_admits_its_share_rounded_up() -> None:
    async with world(replicas=3) as w:
        w.store.is_failing = True
        assert await w.admitted(5) == 2


async def test_store_away__request_above_the_share_is_never_told_to_wait() -> None:
    async with world(replicas=3) as w:
        w.store.is_failing = True
        with pytest.raises(CostAboveLimit) as error:
            await w.decide(cost=3)
        assert (error.value.cost, error.value.at_most) == (3, 2)
        assert (await w.decide(cost=2)).allowed


async def test_store_back__is_asked_again() -> None:
    async with world() as w:
        w.store.is_up = False
        assert (await w.decide()).source == "local"
        w.store.is_up = True
        assert (await w.decide()).source == "store"


async def test_store_away_and_policy_open__everything_passes() -> None:
    async with world() as w:
        w.store.is_failing = True
        policy = Policy("predict", 5, 60, "open")
        assert await w.admitted(9, policy) == 9
        assert (await w.decide(policy)).source == "open"


async def test_what_passed_while_the_policy_was_open__counts_once_it_decides_locally() -> None:
    async with world() as w:
        w.store.is_failing = True
        assert await w.admitted(3, Policy("predict", 5, 60, "open")) == 3
        assert await w.admitted(5) == 2


async def test_store_away_and_policy_closed__nothing_passes_and_nobody_is_blamed() -> None:
    async with world() as w:
        w.store.is_failing = True
        with pytest.raises(LimiterClosed):
            await w.decide(Policy("predict", 5, 60, "closed"))


def test_another_window__has_a_log_of_its_own() -> None:
    limiter = Limiter([])
    assert limiter.key(Policy("predict", 5, 60), b"client") != limiter.key(Policy("predict", 5, 1), b"client")
    assert limiter.key(Policy("predict", 5, 60), b"client") == limiter.key(Policy("predict", 6, 60), b"client")

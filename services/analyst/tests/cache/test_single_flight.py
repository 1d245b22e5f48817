import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from analyst.cache.single_flight import (
    Completion,
    Computed,
    Entered,
    FlightFailed,
    Lifetime,
    Limits,
    Served,
    SingleFlightCache,
    StoreUnavailable,
    TooManyComputations,
)

LIMITS = Limits(ttl_s=300, stale_s=3600, negative_s=5, lease_s=3, compute_s=10, wait_s=20, max_computations=10)


@dataclass
class MemoryStore:
    """A store of one process, with a clock to move."""

    now_s: float = 0.0
    looks: int = 0
    is_away: bool = False
    entries: dict[str, tuple[str, float, Lifetime]] = field(default_factory=dict)
    failures: dict[str, tuple[str, float]] = field(default_factory=dict)
    leases: dict[str, str] = field(default_factory=dict)
    commits: list[Lifetime] = field(default_factory=list)

    async def enter(self, key: str, token: str, lease_s: float) -> Entered:
        if self.is_away:
            raise StoreUnavailable("away")
        self.looks += 1
        payload, stored_s, lifetime = self.entries.get(key, (None, 0.0, Lifetime(0, 0, 0)))
        age_s = self.now_s - stored_s
        code, retry_at_s = self.failures.get(key, ("", 0.0))
        if payload is not None and age_s < lifetime.fresh_s:
            return Entered("HIT", payload, age_s)
        if self.now_s < retry_at_s:
            return Entered("FAILED", failure=code) if payload is None else Entered("STALE", payload, age_s)
        usable = payload is not None and age_s < lifetime.serve_s
        if self.leases.setdefault(key, token) == token:
            return Entered("REFRESH" if usable else "COMPUTE", payload, age_s)
        if usable:
            return Entered("STALE", payload, age_s)
        return Entered("WAIT", lease_s=lease_s, owner=self.leases[key])

    async def commit(self, key: str, token: str, payload: str, lifetime: Lifetime) -> bool:
        if self.is_away:
            raise StoreUnavailable("away")
        self.commits.append(lifetime)
        if self.leases.pop(key, None) != token:
            return False
        self.entries[key] = (payload, self.now_s, lifetime)
        return True

    async def fail(self, key: str, token: str, code: str, retry_s: float) -> bool:
        self.failures[key] = (code, self.now_s + retry_s)
        return self.leases.pop(key, None) == token

    async def renew(self, key: str, token: str, lease_s: float) -> bool:
        return self.leases.get(key) == token

    async def release(self, key: str, token: str) -> None:
        self.leases.pop(key, None)


@dataclass
class Computation:
    """Counts its runs; each waits for `finish`."""

    outcome: Computed | Exception = field(default_factory=lambda: Computed("report"))
    runs: int = 0
    allow_llm: list[bool] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    finish: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, allow_llm: bool) -> Computed:
        self.runs += 1
        self.allow_llm.append(allow_llm)
        self.started.set()
        await self.finish.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def finished(outcome: Computed | Exception) -> Computation:
    computation = Computation(outcome)
    computation.finish.set()
    return computation


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def errors() -> list[BaseException]:
    return []


@pytest.fixture
async def flights(store: MemoryStore, errors: list[BaseException]) -> AsyncIterator[SingleFlightCache]:
    tokens = iter(range(1000))
    flights = SingleFlightCache(
        store,
        LIMITS,
        now=lambda: store.now_s,
        uniform=lambda low, high: (low + high) / 2,
        new_token=lambda: str(next(tokens)),
        on_error=errors.append,
    )
    yield flights
    await flights.close()


async def test_fifty_requests_at_once__compute_once(flights: SingleFlightCache) -> None:
    computation = Computation()
    asked = [asyncio.create_task(flights.get("key", computation)) for _ in range(50)]
    await computation.started.wait()
    assert flights.waiting == 50
    computation.finish.set()
    served = await asyncio.gather(*asked)
    assert served == [Served("report", "miss")] * 50
    assert computation.runs == 1
    assert flights.waiting == 0


async def test_first_client_leaves__the_others_are_served(flights: SingleFlightCache) -> None:
    computation = Computation()
    asked = [asyncio.create_task(flights.get("key", computation)) for _ in range(50)]
    await computation.started.wait()
    asked[0].cancel()
    computation.finish.set()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [Served("report", "miss")] * 49
    assert computation.runs == 1


async def test_every_client_leaves__the_result_is_kept(flights: SingleFlightCache, store: MemoryStore) -> None:
    computation = Computation()
    asked = asyncio.create_task(flights.get("key", computation))
    await computation.started.wait()
    asked.cancel()
    await asyncio.wait([asked])
    computation.finish.set()
    assert await flights.get("key", computation) == Served("report", "miss")
    assert await flights.get("key", computation) == Served("report", "hit")


async def test_fresh_result__is_a_hit_with_its_age(flights: SingleFlightCache, store: MemoryStore) -> None:
    await flights.get("key", finished(Computed("report")))
    store.now_s = 100
    assert await flights.get("key", finished(Computed("other"))) == Served("report", "hit", 100)


async def test_result_past_its_soft_expiry__is_served_stale_and_refreshed(
    flights: SingleFlightCache, store: MemoryStore
) -> None:
    await flights.get("key", finished(Computed("old")))
    store.now_s = 0.9 * LIMITS.ttl_s
    refresh = Computation(Computed("new"))
    assert await flights.get("key", refresh) == Served("old", "stale", store.now_s)
    await refresh.started.wait()
    assert await flights.get("key", finished(Computed("never"))) == Served("old", "stale", store.now_s)
    refresh.finish.set()
    while len(store.commits) < 2:
        await asyncio.sleep(0)
    assert await flights.get("key", finished(Computed("never"))) == Served("new", "hit", 0)


async def test_result_past_its_time__is_computed_anew(flights: SingleFlightCache, store: MemoryStore) -> None:
    await flights.get("key", finished(Computed("old")))
    store.now_s = LIMITS.ttl_s
    assert await flights.get("key", finished(Computed("new"))) == Served("new", "miss")


async def test_failure__is_answered_to_all_for_seconds_without_another_run(
    flights: SingleFlightCache, store: MemoryStore, errors: list[BaseException]
) -> None:
    computation = finished(FlightFailed("metrics_unavailable"))
    for _ in range(3):
        with pytest.raises(FlightFailed, match="metrics_unavailable"):
            await flights.get("key", computation)
    assert computation.runs == 1
    store.now_s = LIMITS.negative_s
    assert await flights.get("key", finished(Computed("report"))) == Served("report", "miss")
    assert errors == []


async def test_failure_with_a_kept_result__serves_it_stale(flights: SingleFlightCache, store: MemoryStore) -> None:
    await flights.get("key", finished(Computed("old")))
    store.now_s = LIMITS.ttl_s + 1
    computation = finished(FlightFailed("metrics_unavailable"))
    assert await flights.get("key", computation) == Served("old", "stale", store.now_s)
    assert await flights.get("key", computation) == Served("old", "stale", store.now_s)
    assert computation.runs == 1


async def test_fallback__is_kept_for_seconds_only(flights: SingleFlightCache, store: MemoryStore) -> None:
    await flights.get("key", finished(Computed("by rules", is_fallback=True)))
    assert store.commits == [Lifetime(LIMITS.negative_s, LIMITS.negative_s, LIMITS.negative_s)]


async def test_fallback__replaces_a_kept_result_that_it_outdates(
    flights: SingleFlightCache, store: MemoryStore
) -> None:
    await flights.get("key", finished(Computed("all is well")))
    store.now_s = LIMITS.ttl_s + 1
    fallback = finished(Computed("by rules", is_fallback=True, supersedes=lambda kept: kept == "all is well"))
    assert await flights.get("key", fallback) == Served("by rules", "miss")
    assert store.commits[-1] == Lifetime(LIMITS.negative_s, LIMITS.negative_s, LIMITS.negative_s)


async def test_fallback__replaces_no_other_kept_result(flights: SingleFlightCache, store: MemoryStore) -> None:
    await flights.get("key", finished(Computed("by model")))
    store.now_s = LIMITS.ttl_s + 1
    fallback = finished(Computed("by rules", is_fallback=True))
    assert await flights.get("key", fallback) == Served("by model", "stale", store.now_s)


async def test_store_away__computes_once_without_spending_and_keeps_nothing(
    flights: SingleFlightCache, store: MemoryStore
) -> None:
    store.is_away = True
    computation = finished(Computed("by rules"))
    served = await asyncio.gather(*(flights.get("key", computation) for _ in range(50)))
    assert served == [Served("by rules", "miss")] * 50
    assert computation.allow_llm == [False]


async def test_store_lost_in_flight__the_result_is_served_all_the_same(
    flights: SingleFlightCache, store: MemoryStore
) -> None:
    computation = Computation()
    asked = asyncio.create_task(flights.get("key", computation))
    await computation.started.wait()
    store.is_away = True
    computation.finish.set()
    assert await asked == Served("report", "miss")


async def test_bug_in_the_computation__is_reported_and_never_repeated_by_waiters(
    flights: SingleFlightCache, store: MemoryStore, errors: list[BaseException]
) -> None:
    bug = ValueError("bug")
    with pytest.raises(ValueError, match="bug"):
        await flights.get("key", finished(bug))
    assert errors == [bug]
    with pytest.raises(FlightFailed, match="error"):
        await flights.get("key", finished(Computed("never")))


async def test_computation_over_its_time__fails(store: MemoryStore, errors: list[BaseException]) -> None:
    limits = Limits(ttl_s=1, stale_s=0, negative_s=1, lease_s=1, compute_s=0.01, wait_s=1, max_computations=1)
    flights = SingleFlightCache(
        store, limits, now=lambda: 0, uniform=max, new_token=lambda: "t", on_error=errors.append
    )
    with pytest.raises(FlightFailed, match="timeout"):
        await flights.get("key", Computation())


async def test_waiter__gives_up_after_its_time(flights: SingleFlightCache, store: MemoryStore) -> None:
    store.leases["key"] = "another process"
    asked = asyncio.create_task(flights.get("key", finished(Computed("never"))))
    await _turns()
    store.now_s = LIMITS.wait_s
    flights.wake("key", Completion())
    with pytest.raises(FlightFailed, match="timeout"):
        await asked


async def test_waiter__looks_again_when_woken(flights: SingleFlightCache, store: MemoryStore) -> None:
    store.leases["key"] = "another process"
    asked = asyncio.create_task(flights.get("key", finished(Computed("never"))))
    await _turns()
    await store.commit("key", "another process", "theirs", Lifetime(100, 100, 100))
    flights.wake_all()
    assert await asked == Served("theirs", "hit", 0)


async def test_waiter_told_the_result_it_waits_for__takes_it_without_another_look(
    flights: SingleFlightCache, store: MemoryStore
) -> None:
    store.leases["key"] = "another process"
    asked = asyncio.create_task(flights.get("key", finished(Computed("never"))))
    await _turns()
    flights.wake("key", Completion("another process", "theirs"))
    assert await asked == Served("theirs", "hit", 0)
    assert store.looks == 1


async def test_waiter_told_the_result_of_another_flight__looks_again(
    flights: SingleFlightCache, store: MemoryStore
) -> None:
    """It may have been invalidated before the waiter asked, and the message may be late."""
    store.leases["key"] = "another process"
    asked = asyncio.create_task(flights.get("key", finished(Computed("never"))))
    await _turns()
    flights.wake("key", Completion("an earlier flight", "before"))
    await _turns()
    assert not asked.done()
    assert store.looks == 2
    flights.wake("key", Completion("another process", "after"))
    assert await asked == Served("after", "hit", 0)


async def test_leader_elsewhere_dies__a_waiter_leads_after_the_lease(
    flights: SingleFlightCache, store: MemoryStore
) -> None:
    store.leases["key"] = "another process"
    asked = asyncio.create_task(flights.get("key", finished(Computed("report"))))
    await _turns()
    del store.leases["key"]
    flights.wake("key", Completion())
    assert await asked == Served("report", "miss")


async def test_close__hands_leases_over(flights: SingleFlightCache, store: MemoryStore) -> None:
    computation = Computation()
    asked = asyncio.create_task(flights.get("key", computation))
    await computation.started.wait()
    assert store.leases
    await flights.close()
    assert not store.leases
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_request_after_an_invalidation__joins_no_earlier_flight(
    flights: SingleFlightCache, store: MemoryStore
) -> None:
    before, after = Computation(Computed("before")), finished(Computed("after"))
    asked = asyncio.create_task(flights.get("key", before))
    await before.started.wait()
    store.leases.clear()
    flights.forget_all()
    assert await flights.get("key", after) == Served("after", "miss")
    before.finish.set()
    assert await asked == Served("before", "miss")
    assert store.entries["key"][0] == "after"


async def test_too_many_computations__refuse_new_keys_and_serve_cached_ones(
    flights: SingleFlightCache, store: MemoryStore
) -> None:
    await flights.get("cached", finished(Computed("report")))
    computation = Computation()
    keys = [str(number) for number in range(LIMITS.max_computations)]
    asked = [asyncio.create_task(flights.get(key, computation)) for key in keys]
    await _turns()
    with pytest.raises(TooManyComputations):
        await flights.get("one more", computation)
    assert store.leases.keys() == {*keys}
    assert (await flights.get("cached", computation)).cache == "hit"
    store.now_s = LIMITS.ttl_s - 1
    assert (await flights.get("cached", computation)).cache == "stale"  # too late to refresh it, too early to refuse
    computation.finish.set()
    await asyncio.gather(*asked)


async def _turns(number: int = 5) -> None:
    """Let tasks run until they wait for something outside."""
    for _ in range(number):
        await asyncio.sleep(0)

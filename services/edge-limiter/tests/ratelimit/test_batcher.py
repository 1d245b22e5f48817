import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from edge_limiter.ratelimit.batcher import BATCH_KEYS, TICK_S, DecisionBatcher, Query, QueryResult, StoreUnavailable
from edge_limiter.ratelimit.policy import Policy

POLICY = Policy("predict", 10, 60)
OTHER = Policy("predict", 20, 60)


class HeldStore:
    """Holds each batch until the test answers it."""

    def __init__(self) -> None:
        self.is_up = True
        self.batches: list[Sequence[Query]] = []
        self.received = asyncio.Semaphore(0)
        self._answers: asyncio.Queue[Callable[[Sequence[Query]], list[QueryResult]]] = asyncio.Queue()

    async def decide(self, queries: Sequence[Query]) -> list[QueryResult]:
        self.batches.append(queries)
        self.received.release()
        return (await self._answers.get())(queries)

    def answer(self, *admitted: int) -> None:
        """Admit so many of each query, or all of them."""
        self._answers.put_nowait(
            lambda queries: [QueryResult(n, 0, 1.0) for n in (admitted or [query.requests for query in queries])]
        )

    def fail(self, error: Exception) -> None:
        def raise_it(_queries: Sequence[Query]) -> list[QueryResult]:
            raise error

        self._answers.put_nowait(raise_it)

    @property
    def keys(self) -> list[list[bytes]]:
        return [[query.key for query in batch] for batch in self.batches]


class Passed:
    """How many requests each result let through."""

    def __init__(self) -> None:
        self.by_key: dict[bytes, int] = {}

    def __call__(self, _policy: Policy, query: Query, _result: QueryResult, passed: int, _sent_s: float) -> None:
        self.by_key[query.key] = passed


@asynccontextmanager
async def running(
    store: HeldStore,
    *,
    timeout_s: float = 60.0,
    now: Callable[[], float] = lambda: 0.0,
    passed: Passed | None = None,
    observe_s: Callable[[float], None] = lambda _seconds: None,
) -> AsyncIterator[DecisionBatcher]:
    batcher = DecisionBatcher(store, timeout_s=timeout_s, now=now, on_result=passed or Passed(), observe_s=observe_s)
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher
    finally:
        task.cancel()
        await asyncio.wait([task])


def ask(
    batcher: DecisionBatcher, key: bytes, cost: int = 1, policy: Policy = POLICY, timeout_s: float = 60.0
) -> "asyncio.Task[bool]":
    async def allowed() -> bool:
        return (await batcher.submit(policy, key, cost, timeout_s)).allowed

    return asyncio.create_task(allowed())


async def test_requests_during_a_statement__form_one_batch_with_keys_summed() -> None:
    store = HeldStore()
    async with running(store) as batcher:
        tasks = [ask(batcher, b"a")]
        await store.received.acquire()
        tasks += [ask(batcher, key) for key in (b"b", b"a", b"b", b"c")]
        await asyncio.sleep(0)
        store.answer()
        store.answer()
        assert await asyncio.gather(*tasks) == [True] * 5
    assert [[(query.key, query.requests) for query in batch] for batch in store.batches] == [
        [(b"a", 1)],
        [(b"b", 2), (b"a", 1), (b"c", 1)],
    ]


async def test_partly_admitted_key__admits_the_first_waiters() -> None:
    store = HeldStore()
    async with running(store) as batcher:
        tasks = [ask(batcher, b"a") for _ in range(4)]
        store.answer(2)
        assert await asyncio.gather(*tasks) == [True, True, False, False]


async def test_waiters_of_another_cost_or_policy__get_a_batch_of_their_own() -> None:
    store = HeldStore()
    async with running(store) as batcher:
        tasks = [
            ask(batcher, b"a"),
            ask(batcher, b"a", cost=5),
            ask(batcher, b"a", cost=5),
            ask(batcher, b"a", policy=OTHER),
        ]
        for _ in range(3):
            store.answer()
        await asyncio.gather(*tasks)
    assert [[(query.requests, query.cost, query.limit) for query in batch] for batch in store.batches] == [
        [(1, 1, 10)],
        [(2, 5, 10)],
        [(1, 1, 20)],
    ]


async def test_alternating_costs__take_one_batch_each() -> None:
    store = HeldStore()
    async with running(store) as batcher:
        tasks = [ask(batcher, b"a", cost=1 + number % 2) for number in range(6)]
        store.answer()
        store.answer()
        assert await asyncio.gather(*tasks) == [True] * 6
    assert [[(query.requests, query.cost) for query in batch] for batch in store.batches] == [[(3, 1)], [(3, 2)]]


async def test_batch__is_capped_and_the_rest_follows() -> None:
    store = HeldStore()
    async with running(store) as batcher:
        tasks = [ask(batcher, b"%d" % number) for number in range(BATCH_KEYS + 1)]
        store.answer()
        store.answer()
        await asyncio.gather(*tasks)
    assert [len(batch) for batch in store.batches] == [BATCH_KEYS, 1]


async def test_waiter_whose_client_disconnected__is_not_charged() -> None:
    store = HeldStore()
    async with running(store) as batcher:
        first = ask(batcher, b"a")
        await store.received.acquire()
        gone, stays = ask(batcher, b"b"), ask(batcher, b"c")
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        store.answer()
        store.answer()
        await asyncio.gather(first, stays)
    assert store.keys == [[b"a"], [b"c"]]


async def test_batches_of_disconnected_waiters__do_not_delay_those_behind_them() -> None:
    store = HeldStore()
    async with running(store) as batcher:
        first = ask(batcher, b"a")
        await store.received.acquire()
        gone, stays = [ask(batcher, b"%d" % number) for number in range(2 * BATCH_KEYS)], ask(batcher, b"d")
        await asyncio.sleep(0)
        for leaving in gone:
            leaving.cancel()
        await asyncio.wait(gone)
        store.answer()
        store.answer()
        async with asyncio.timeout(60):
            assert all(await asyncio.gather(first, stays))
    assert store.keys == [[b"a"], [b"d"]]


@pytest.mark.parametrize("fails", [False, True])
async def test_client_that_disconnects_during_its_statement__leaves_the_batcher_running(fails: bool) -> None:
    store, passed = HeldStore(), Passed()
    async with running(store, passed=passed) as batcher:
        gone, stays = ask(batcher, b"a"), ask(batcher, b"a")
        await store.received.acquire()
        gone.cancel()
        await asyncio.wait([gone])
        if fails:
            store.fail(StoreUnavailable())
        else:
            store.answer()
        store.answer()
        async with asyncio.timeout(60):
            await asyncio.wait([stays])
            assert await ask(batcher, b"b")
    assert passed.by_key == {b"b": 1} if fails else {b"a": 1, b"b": 1}


async def test_failing_store__fails_the_batch_and_serves_the_next() -> None:
    store = HeldStore()
    async with running(store) as batcher:
        failing = ask(batcher, b"a")
        store.fail(StoreUnavailable())
        with pytest.raises(StoreUnavailable):
            await failing
        store.answer()
        assert await ask(batcher, b"a")


async def test_late_statement__fails_its_waiters_and_is_not_abandoned() -> None:
    store, passed = HeldStore(), Passed()
    async with running(store, timeout_s=2 * TICK_S, passed=passed) as batcher:
        late = [ask(batcher, b"a"), ask(batcher, b"a")]
        await store.received.acquire()
        behind = ask(batcher, b"b")
        for task in (*late, behind):
            with pytest.raises(StoreUnavailable):
                await task
        store.answer()
        store.answer()
        assert await ask(batcher, b"c")
    assert store.keys == [[b"a"], [b"c"]]
    assert passed.by_key == {b"a": 0, b"c": 1}


async def test_nearer_deadline_of_a_client__ends_its_wait_alone_and_never_early() -> None:
    store = HeldStore()
    async with running(store) as batcher:
        patient = ask(batcher, b"a")
        await store.received.acquire()
        started_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await ask(batcher, b"a", timeout_s=2 * TICK_S)
        assert time.monotonic() - started_s >= 2 * TICK_S
        store.answer()
        assert await patient


async def test_loop_that_stalls_during_a_statement__makes_no_waiter_late() -> None:
    store = HeldStore()
    async with running(store, timeout_s=4 * TICK_S) as batcher:
        first = ask(batcher, b"a")
        await store.received.acquire()
        behind = ask(batcher, b"b")
        await asyncio.sleep(0)
        store.answer()
        store.answer()
        time.sleep(12 * TICK_S)  # noqa: ASYNC251  # the stall
        assert list(await asyncio.gather(first, behind)) == [True, True]


async def test_store_that_is_down__is_not_waited_for() -> None:
    store = HeldStore()
    store.is_up = False
    async with running(store) as batcher:
        with pytest.raises(StoreUnavailable):
            await batcher.submit(POLICY, b"a", 1, 60)


async def test_batcher_that_stops__fails_its_waiters() -> None:
    store = HeldStore()
    async with running(store) as batcher:
        first = ask(batcher, b"a")
        await store.received.acquire()
        waiting = ask(batcher, b"b")
        await asyncio.sleep(0)
    for task in (first, waiting):
        with pytest.raises(StoreUnavailable):
            await task


async def test_reported_time_of_a_decision__includes_its_wait_for_the_statement_before() -> None:
    store, clock, waits_s = HeldStore(), [0.0], list[float]()
    async with running(store, now=lambda: clock[0], observe_s=waits_s.append) as batcher:
        first = ask(batcher, b"a")
        await store.received.acquire()
        second = ask(batcher, b"b")
        await asyncio.sleep(0)
        for clock[0] in (0.02, 0.05):
            store.answer()
            await (first if clock[0] == 0.02 else second)
    assert [round(wait_s, 6) for wait_s in waits_s] == [0.02, 0.05]

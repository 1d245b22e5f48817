import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from edge_limiter.lane import Ask, Lane, StoreUnavailable, Verdict
from edge_limiter.policy import Policy

POLICY = Policy("predict", 10, 60)
OTHER = Policy("predict", 20, 60)


class HeldStore:
    """Keeps each batch until the test answers it."""

    def __init__(self) -> None:
        self.is_up = True
        self.batches: list[Sequence[Ask]] = []
        self.patience_s: list[float] = []
        self.asked = asyncio.Semaphore(0)
        self._answers: asyncio.Queue[Callable[[Sequence[Ask]], list[Verdict]]] = asyncio.Queue()

    async def decide(self, asks: Sequence[Ask], timeout_s: float) -> list[Verdict]:
        self.batches.append(asks)
        self.patience_s.append(timeout_s)
        self.asked.release()
        return (await self._answers.get())(asks)

    def answer(self, *admitted: int) -> None:
        """Admit so many of each ask; all of them when none is given."""
        self._answers.put_nowait(
            lambda asks: [Verdict(n, 0, 1.0) for n in (admitted or [ask.requests for ask in asks])]
        )

    def fail(self, error: Exception) -> None:
        def raise_it(_asks: Sequence[Ask]) -> list[Verdict]:
            raise error

        self._answers.put_nowait(raise_it)


@asynccontextmanager
async def running(
    store: HeldStore,
    *,
    batch_keys: int = 64,
    now: Callable[[], float] = lambda: 0.0,
    on_batch: Callable[[int, float], None] = lambda keys, seconds: None,
) -> AsyncIterator[Lane]:
    lane = Lane(store, timeout_s=0.1, batch_keys=batch_keys, now=now, on_batch=on_batch)
    task = asyncio.create_task(lane.run())
    try:
        yield lane
    finally:
        task.cancel()
        await asyncio.wait([task])


def ask(lane: Lane, key: bytes, cost: int = 1, policy: Policy = POLICY) -> "asyncio.Task[bool]":
    async def allowed() -> bool:
        return (await lane.ask(policy, key, cost)).allowed

    return asyncio.create_task(allowed())


async def test_requests_that_arrive_meanwhile__go_as_one_batch_with_keys_summed() -> None:
    store = HeldStore()
    async with running(store) as lane:
        tasks = [ask(lane, b"a")]
        await store.asked.acquire()
        tasks += [ask(lane, key) for key in (b"b", b"a", b"b", b"c")]
        await asyncio.sleep(0)
        store.answer()
        store.answer()
        assert await asyncio.gather(*tasks) == [True] * 5
    assert [[(a.key, a.requests) for a in batch] for batch in store.batches] == [
        [(b"a", 1)],
        [(b"b", 2), (b"a", 1), (b"c", 1)],
    ]


async def test_partly_admitted_key__lets_the_first_waiters_go() -> None:
    store = HeldStore()
    async with running(store) as lane:
        tasks = [ask(lane, b"a") for _ in range(4)]
        store.answer(2)
        assert await asyncio.gather(*tasks) == [True, True, False, False]


async def test_waiters_of_another_cost_or_policy__wait_for_a_batch_of_their_own() -> None:
    store = HeldStore()
    async with running(store) as lane:
        tasks = [ask(lane, b"a"), ask(lane, b"a", cost=5), ask(lane, b"a", cost=5), ask(lane, b"a", policy=OTHER)]
        for _ in range(3):
            store.answer()
        await asyncio.gather(*tasks)
    assert [[(a.requests, a.cost, a.limit) for a in batch] for batch in store.batches] == [
        [(1, 1, 10)],
        [(2, 5, 10)],
        [(1, 1, 20)],
    ]


async def test_batch__is_capped_and_the_rest_follows() -> None:
    store = HeldStore()
    async with running(store, batch_keys=2) as lane:
        tasks = [ask(lane, key) for key in (b"a", b"b", b"c")]
        store.answer()
        store.answer()
        await asyncio.gather(*tasks)
    assert [len(batch) for batch in store.batches] == [2, 1]


async def test_waiter_whose_client_has_gone__is_not_charged() -> None:
    store = HeldStore()
    async with running(store) as lane:
        first = ask(lane, b"a")
        await store.asked.acquire()
        gone, stays = ask(lane, b"b"), ask(lane, b"c")
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        store.answer()
        store.answer()
        await asyncio.gather(first, stays)
    assert [a.key for a in store.batches[1]] == [b"c"]


async def test_only_gone_waiters__ask_nothing() -> None:
    store = HeldStore()
    async with running(store) as lane:
        first = ask(lane, b"a")
        await store.asked.acquire()
        gone = ask(lane, b"b")
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        store.answer()
        assert await first
        last = ask(lane, b"c")
        store.answer()
        assert await last
    assert [[a.key for a in batch] for batch in store.batches] == [[b"a"], [b"c"]]


async def test_whole_batches_of_gone_waiters__do_not_keep_those_behind_them_waiting() -> None:
    store = HeldStore()
    async with running(store, batch_keys=1) as lane:
        first = ask(lane, b"a")
        await store.asked.acquire()
        gone, stays = [ask(lane, b"b"), ask(lane, b"c")], ask(lane, b"d")
        await asyncio.sleep(0)
        for leaving in gone:
            leaving.cancel()
        await asyncio.wait(gone)
        store.answer()
        store.answer()
        async with asyncio.timeout(60):
            assert all(await asyncio.gather(first, stays))


async def test_store_that_fails__fails_the_batch_and_serves_the_next() -> None:
    store = HeldStore()
    async with running(store) as lane:
        failing = ask(lane, b"a")
        store.fail(StoreUnavailable())
        with pytest.raises(StoreUnavailable):
            await failing
        store.answer()
        assert await ask(lane, b"a")


@pytest.mark.parametrize("fails", [False, True])
async def test_client_that_leaves_while_its_statement_runs__ends_no_lane(fails: bool) -> None:
    store = HeldStore()
    async with running(store) as lane:
        gone, stays = ask(lane, b"a"), ask(lane, b"a")
        await store.asked.acquire()
        gone.cancel()
        await asyncio.wait([gone])
        if fails:
            store.fail(StoreUnavailable())
        else:
            store.answer()
        store.answer()
        async with asyncio.timeout(60):
            await asyncio.wait([stays])
            assert await ask(lane, b"b")


async def test_waiter_past_its_deadline__is_not_sent() -> None:
    store, now = HeldStore(), [0.0]
    async with running(store, now=lambda: now[0]) as lane:
        first = ask(lane, b"a")
        await store.asked.acquire()
        late = ask(lane, b"b")
        await asyncio.sleep(0)
        now[0] = 0.2
        store.answer()
        assert await first
        with pytest.raises(StoreUnavailable):
            await late
    assert len(store.batches) == 1


async def test_costs_that_alternate__take_one_batch_each() -> None:
    store = HeldStore()
    async with running(store) as lane:
        tasks = [ask(lane, b"a", cost=1 + number % 2) for number in range(6)]
        store.answer()
        store.answer()
        assert await asyncio.gather(*tasks) == [True] * 6
    assert [[(a.requests, a.cost) for a in batch] for batch in store.batches] == [[(3, 1)], [(3, 2)]]


async def test_waiter_that_waited_for_half_its_time__neither_fails_nor_hurries_the_others() -> None:
    store, now = HeldStore(), [0.0]
    async with running(store, now=lambda: now[0]) as lane:
        first = ask(lane, b"a")
        await store.asked.acquire()
        late = ask(lane, b"b")
        await asyncio.sleep(0)
        now[0] = 0.02
        fresh = ask(lane, b"c")
        await asyncio.sleep(0)
        now[0] = 0.06
        store.answer()
        assert await first
        with pytest.raises(StoreUnavailable):
            await late
        store.answer()
        assert await fresh
    assert [[a.key for a in batch] for batch in store.batches] == [[b"a"], [b"c"]]
    assert min(store.patience_s) >= 0.05


async def test_statement__gets_the_time_that_its_most_hurried_waiter_has_left() -> None:
    store, now = HeldStore(), [1_000.0]
    async with running(store, now=lambda: now[0]) as lane:
        first = ask(lane, b"a")
        await store.asked.acquire()
        tasks = [ask(lane, b"b")]
        await asyncio.sleep(0)
        now[0] += 0.03
        tasks.append(ask(lane, b"c"))
        await asyncio.sleep(0)
        now[0] += 0.01
        store.answer()
        store.answer()
        await asyncio.gather(first, *tasks)
    assert store.patience_s == pytest.approx([0.1, 0.06])


async def test_store_that_is_down__is_not_waited_for() -> None:
    store = HeldStore()
    store.is_up = False
    async with running(store) as lane:
        with pytest.raises(StoreUnavailable):
            await lane.ask(POLICY, b"a", 1)


async def test_lane_that_ends__tells_its_waiters() -> None:
    store = HeldStore()
    async with running(store) as lane:
        first = ask(lane, b"a")
        await store.asked.acquire()
        waiting = ask(lane, b"b")
        await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await waiting
    first.cancel()
    await asyncio.wait([first])


async def test_time_of_a_decision__has_its_wait_for_the_statement_before() -> None:
    store, clock, told = HeldStore(), [0.0], list[tuple[int, float]]()
    async with running(
        store, now=lambda: clock[0], on_batch=lambda keys, seconds: told.append((keys, seconds))
    ) as lane:
        first = ask(lane, b"a")
        await store.asked.acquire()
        second = ask(lane, b"b")
        await asyncio.sleep(0)
        for clock[0] in (0.02, 0.05):
            store.answer()
            await (first if clock[0] == 0.02 else second)
    assert [(keys, round(seconds, 6)) for keys, seconds in told] == [(1, 0.02), (1, 0.05)]


async def test_time_before_the_first_statement__is_not_the_store_s() -> None:
    store, now = HeldStore(), [0.0]
    async with running(store, now=lambda: now[0]) as lane:
        waiting = ask(lane, b"a")
        asyncio.get_running_loop().call_soon(lambda: now.__setitem__(0, 0.06))  # before the lane's turn
        store.answer()
        assert await waiting
    assert store.patience_s == [0.1]


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_loop_that_stands_still_while_the_store_is_asked__fails_nobody(turns: int) -> None:
    store = HeldStore()
    async with running(store, now=time.monotonic) as lane:
        first = ask(lane, b"a")
        await store.asked.acquire()
        behind = ask(lane, b"b")
        for _ in range(turns):
            await asyncio.sleep(0)
        store.answer()
        time.sleep(0.3)  # noqa: ASYNC251  # the loop stands still
        store.answer()
        assert await asyncio.gather(*[first, behind]) == [True, True]
    assert 0.05 <= store.patience_s[1] < 0.11


async def test_wait_for_several_statements__counts_as_one() -> None:
    store, now = HeldStore(), [0.0]
    async with running(store, batch_keys=1, now=lambda: now[0]) as lane:
        tasks = [ask(lane, key) for key in (b"a", b"b", b"c", b"d")]
        for task in tasks[:3]:
            await store.asked.acquire()
            now[0] += 0.02
            store.answer()
            await task
        with pytest.raises(StoreUnavailable):
            await tasks[3]
    assert len(store.batches) == 3

"""Tests of the result cache and of jobs that several wait for."""

import asyncio
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from inference.batching.jobs import Job, Scored
from inference.prediction.cache import ResultCache, SingleFlight, key_of


def scored(score: float = 0.5) -> Scored:
    return Scored((1 - score, score), 5, False, 0.001, 0.005)


def test_key__depends_on_revision_and_text() -> None:
    assert len({key_of("r1", "a"), key_of("r2", "a"), key_of("r1", "b"), key_of("r1", "a\0")}) == 4


def test_least_recently_used__goes_first() -> None:
    cache = ResultCache(3 * 500)
    for name in (b"a", b"b", b"c"):
        cache.put(name, scored())
    assert cache.get(b"a") is not None
    cache.put(b"d", scored())
    assert [cache.get(name) is not None for name in (b"a", b"b", b"c", b"d")] == [True, False, True, True]


def test_cache_of_no_bytes__keeps_nothing() -> None:
    cache = ResultCache(0)
    cache.put(b"a", scored())
    assert (cache.get(b"a"), len(cache), cache.size_bytes) == (None, 0, 0)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), st.floats(0, 1)), max_size=50))
def test_size__is_bounded_and_the_last_value_counts(puts: list[tuple[bytes, float]]) -> None:
    cache = ResultCache(3 * 500)
    for key, score in puts:
        cache.put(key, scored(score))
        assert cache.size_bytes <= 3 * 500
        assert cache.get(key) == scored(score)
    assert len(cache) == min(3, len({key for key, _ in puts}))


def test_accounted_bytes__cover_the_real_ones() -> None:
    cache = ResultCache(1 << 30)
    tracemalloc.start()
    for number in range(20_000):
        cache.put(key_of("r", str(number)), Scored((number / 3, number / 7), 1000 + number, False, number / 9, 0.1))
    real, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1.0 < cache.size_bytes / real < 1.5


def flying(deadline_s: float = 10.0) -> Job:
    return Job(1, "text", 3, 0.0, deadline_s, asyncio.get_running_loop().create_future())


async def test_last_waiter_to_leave__withdraws_the_job() -> None:
    flights = SingleFlight(lambda _job, _deadline_s: True)
    job = flying()
    flights.board(b"k", job)
    assert flights.join(b"k", 5.0) is job
    flights.leave(job)
    assert not job.future.cancelled()
    flights.leave(job)
    assert job.future.cancelled()
    assert flights.join(b"k", 5.0) is None


async def test_job_that_ended__is_not_joined_and_not_cancelled() -> None:
    flights = SingleFlight(lambda _job, _deadline_s: True)
    job = flying()
    flights.board(b"k", job)
    job.future.set_result(scored())
    await asyncio.sleep(0)
    assert flights.join(b"k", 5.0) is None
    flights.leave(job)
    assert job.future.result() == scored()


async def test_job_past_its_deadline__is_not_joined() -> None:
    flights = SingleFlight(lambda _job, _deadline_s: False)
    flights.board(b"k", flying())
    assert flights.join(b"k", 20.0) is None


async def test_job_that_ended__does_not_take_the_next_of_its_text_with_it() -> None:
    """One past its deadline is not joined, and another is on its way before it ends."""
    flights = SingleFlight(lambda _job, _deadline_s: True)
    late, next_one = flying(), flying()
    flights.board(b"k", late)
    flights.board(b"k", next_one)
    late.future.set_result(scored())
    await asyncio.sleep(0)
    assert flights.join(b"k", 5.0) is next_one

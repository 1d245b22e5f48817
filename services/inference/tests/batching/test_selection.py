"""Tests of the batch selection: budget, like lengths, and that nothing starves."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from inference.batching.jobs import Job
from inference.batching.selection import LengthBucketedQueue

NEVER = float("inf")


def job(number: int, tokens: int, deadline_s: float = NEVER) -> Job:
    return Job(number, "", tokens, 0.0, deadline_s, cast(Any, None))


def waiting(budget: int, lengths: list[int]) -> tuple[LengthBucketedQueue, list[Job]]:
    room = LengthBucketedQueue(budget)
    jobs = [job(number, tokens) for number, tokens in enumerate(lengths)]
    for one in jobs:
        room.add(one)
    return room, jobs


def test_batch__takes_like_lengths_together_and_leaves_the_rest() -> None:
    room, jobs = waiting(1000, [20, 200, 21, 19, 210])
    assert room.take(0.0) == [jobs[0], jobs[3], jobs[2]]
    assert room.take(0.0) == [jobs[1], jobs[4]]


def test_few_jobs__are_shared_among_the_workers() -> None:
    room, jobs = waiting(1000, [20, 20, 20, 20, 20])
    assert room.take(0.0, workers=2) == jobs[:3]
    assert [room.take(0.0, workers=2) for _ in range(2)] == [[jobs[3]], [jobs[4]]]


def test_no_worker_is_ready__and_the_next_batch_is_whole() -> None:
    room, jobs = waiting(1000, [20, 20])
    assert room.take(0.0, workers=0) == jobs


def test_text_longer_than_the_budget__goes_alone() -> None:
    room, jobs = waiting(64, [500, 500])
    assert room.take(0.0) == [jobs[0]]
    assert room.take(0.0) == [jobs[1]]


def test_job_past_its_deadline__is_dropped() -> None:
    room = LengthBucketedQueue(100)
    late, fine = job(0, 10, deadline_s=5.0), job(1, 10, deadline_s=5.1)
    room.add(late)
    room.add(fine)
    assert room.take(5.0) == [fine]
    assert len(room) == 0


def test_removed_job__is_not_taken() -> None:
    room, jobs = waiting(100, [10, 10])
    room.remove(jobs[0])
    room.remove(jobs[0])
    assert room.take(0.0) == [jobs[1]]


def test_job_put_back_after_its_worker_died__is_next_and_alone() -> None:
    room, jobs = waiting(20, [10, 10, 10, 10])
    taken = room.take(0.0)
    for one in reversed(taken):
        one.attempts = 1
        room.put_back(one)
    assert [room.take(0.0) for _ in range(3)] == [[jobs[0]], [jobs[1]], [jobs[2], jobs[3]]]


@given(st.integers(1, 300), st.lists(st.integers(1, 120), max_size=60), st.integers(1, 4))
def test_every_job__is_taken_exactly_once_within_the_budget(budget: int, lengths: list[int], workers: int) -> None:
    room, jobs = waiting(budget, lengths)
    taken: list[Job] = []
    while batch := room.take(0.0, workers):
        longest = max(one.tokens for one in batch)
        assert len(batch) * workers < len(jobs) - len(taken) + workers
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert all(longest - one.tokens <= max(longest * 2 // 5, 16) for one in batch)
        taken += batch
    assert sorted(one.number for one in taken) == [one.number for one in jobs]
    assert len(room) == 0


@given(st.integers(1, 300), st.lists(st.lists(st.integers(1, 120), max_size=8), min_size=1, max_size=30))
def test_nothing_starves__a_job_waits_for_no_more_batches_than_were_older(budget: int, bursts: list[list[int]]) -> None:
    """New jobs keep coming before every batch; whatever their lengths, the oldest goes next."""
    room = LengthBucketedQueue(budget)
    older: dict[int, int] = {}
    number = 0
    for burst in bursts:
        for tokens in burst:
            older[number] = len(room)
            room.add(job(number, tokens))
            number += 1
        batch = {one.number for one in room.take(0.0)}
        assert not older or min(older) in batch
        older = {name: left - 1 for name, left in older.items() if name not in batch}
        assert all(left >= 0 for left in older.values())

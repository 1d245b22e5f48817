"""The queue against a simple model: jobs arrive, are taken, put back and leave in any order."""

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.batching.jobs import Job
from inference.batching.queue import RequestQueue

BUDGET = 40
SIZES = st.integers(1, 50)
WHICH = st.integers(0, 1 << 30)


def job(number: int, tokens: int, deadline_s: float = float("inf")) -> Job:
    future: Any = Future()
    return Job(number, "", tokens, 0.0, deadline_s, future)


def filled(budget: int, lengths: list[int], workers: int = 1) -> tuple[RequestQueue, list[Job]]:
    queue = RequestQueue(budget, lambda: 0.0)
    queue.workers = workers
    jobs = [job(number, tokens) for number, tokens in enumerate(lengths)]
    queue.enqueue(jobs)
    return queue, jobs


@dataclass
class Place:
    """Where the model expects a job: waiting, or with a worker."""

    job: Job
    at: str


class QueueMachine(RuleBasedStateMachine):
    """What `take_now` returns. The tests below cover waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.count = 0
        self.places: dict[int, Place] = {}
        self.is_out_of_order = False
        self.queue = RequestQueue(BUDGET, lambda: self.now_s)

    def at(self, where: str) -> list[Job]:
        return [place.job for place in self.places.values() if place.at == where]

    def live(self) -> list[Job]:
        return [job for job in self.at("waiting") if job.deadline_s > self.now_s]

    @rule(sizes=st.lists(SIZES, min_size=1, max_size=5), seconds=st.integers(1, 20))
    def submit(self, sizes: list[int], seconds: int) -> None:
        jobs = [job(self.count + place, size, self.now_s + seconds) for place, size in enumerate(sizes)]
        self.count += len(jobs)
        self.queue.enqueue(jobs)
        self.places |= {job.number: Place(job, "waiting") for job in jobs}

    @rule()
    def take(self) -> None:
        live = self.live()
        batch = self.queue.take_now()
        assert bool(batch) == bool(live)
        if not batch:
            return
        assert set(batch) <= set(live)
        assert len(batch) == 1 or len(batch) * max(job.tokens for job in batch) <= BUDGET
        assert len(batch) == 1 or not any(job.attempts for job in batch)
        if not self.is_out_of_order:
            assert batch[0] is min(live, key=lambda job: job.number)
        for job in batch:
            self.places[job.number].at = "worker"

    @precondition(lambda self: self.at("worker"))
    @rule(which=WHICH, was_begun=st.booleans())
    def put_back(self, which: int, was_begun: bool) -> None:
        job = self.any(self.at("worker"), which)
        job.attempts += was_begun
        self.queue.put_back([job])
        self.is_out_of_order = True
        self.places[job.number].at = "waiting"

    @precondition(lambda self: self.places)
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        """Answered or withdrawn, wherever it is."""
        job = self.any([place.job for place in self.places.values()], which)
        job.future.cancel()
        self.queue.remove(job)
        del self.places[job.number]

    @precondition(lambda self: self.places)
    @rule(which=WHICH, seconds=st.integers(1, 30))
    def extend(self, which: int, seconds: int) -> None:
        job = self.any([place.job for place in self.places.values()], which)
        before_s, wanted_s = job.deadline_s, self.now_s + seconds
        assert self.queue.extend(job, wanted_s) == (before_s > self.now_s)
        assert job.deadline_s == (max(before_s, wanted_s) if before_s > self.now_s else before_s)

    @rule(seconds=st.integers(1, 5))
    def let_time_pass(self, seconds: int) -> None:
        self.now_s += seconds

    @invariant()
    def depth_counts_jobs_without_a_worker(self) -> None:
        """A job past its deadline may have been dropped already."""
        assert len(self.live()) <= self.queue.depth <= len(self.at("waiting"))

    @staticmethod
    def any(jobs: list[Job], which: int) -> Job:
        return jobs[which % len(jobs)]


QueueMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestQueue = QueueMachine.TestCase


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_waiting_workers__each_get_a_batch_last_idle_first() -> None:
    queue, jobs = RequestQueue(BUDGET, lambda: 0.0), [job(number, BUDGET) for number in range(3)]
    workers = [asyncio.create_task(queue.take()) for _ in range(4)]
    await turns()
    queue.enqueue(jobs)
    await turns()
    assert [worker.result() for worker in reversed(workers[1:])] == [[job] for job in jobs]
    assert not workers[0].done()
    workers[0].cancel()


async def test_worker_that_stopped_waiting__loses_no_batch() -> None:
    queue, only = RequestQueue(BUDGET, lambda: 0.0), job(0, BUDGET)
    stays, gone = (asyncio.create_task(queue.take()) for _ in range(2))
    await turns()
    gone.cancel()
    await turns()
    queue.enqueue([only])
    assert await stays == [only]


async def test_prefetching_worker__waits_for_the_backlog() -> None:
    queue, jobs = RequestQueue(BUDGET, lambda: 0.0), [job(number, BUDGET) for number in range(4)]
    many, any_ = asyncio.create_task(queue.take(2)), asyncio.create_task(queue.take())
    await turns()
    queue.enqueue(jobs[:3])
    await turns()
    assert any_.result() == [jobs[0]]
    assert not many.done()  # two wait
    queue.enqueue(jobs[3:])
    assert await many == [jobs[1]]


@pytest.mark.parametrize(
    ("budget", "lengths", "workers", "batches"),
    [
        (1000, [20, 200, 21, 19, 210], 1, [[0, 3, 2], [1, 4]]),  # similar lengths together
        (1000, [20] * 5, 2, [[0, 1, 2], [3], [4]]),  # shared among the workers
        (64, [500, 500], 1, [[0], [1]]),  # longer than the budget
    ],
)
def test_batches__hold_similar_lengths_within_the_budget(
    budget: int, lengths: list[int], workers: int, batches: list[list[int]]
) -> None:
    queue, _ = filled(budget, lengths, workers)
    assert [[one.number for one in queue.take_now()] for _ in batches] == batches


def test_job_put_back_after_a_death__is_next_and_alone() -> None:
    queue, jobs = filled(20, [10, 10, 10, 10])
    taken = queue.take_now()
    for one in taken:
        one.attempts = 1
    queue.put_back(taken)
    assert [queue.take_now() for _ in range(3)] == [[jobs[0]], [jobs[1]], [jobs[2], jobs[3]]]


@given(st.integers(1, 300), st.lists(st.integers(1, 120), max_size=60), st.integers(1, 4))
def test_every_job__is_taken_exactly_once_within_the_budget(budget: int, lengths: list[int], workers: int) -> None:
    queue, jobs = filled(budget, lengths, workers)
    taken: list[Job] = []
    while batch := queue.take_now():
        longest = max(one.tokens for one in batch)
        assert len(batch) * workers < len(jobs) - len(taken) + workers
        assert len(batch) == 1 or len(batch) * longest <= budget
        assert all(longest - one.tokens <= max(longest * 2 // 5, 16) for one in batch)
        taken += batch
    assert sorted(one.number for one in taken) == [one.number for one in jobs]
    assert queue.depth == 0

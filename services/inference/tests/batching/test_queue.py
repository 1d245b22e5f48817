"""Tests of the desk against a simple model of it: jobs come, are scored, put back and leave in any order."""

import asyncio
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.batching.admission import Admission, Limits
from inference.batching.jobs import Job, Overloaded
from inference.batching.queue import RequestQueue
from inference.batching.selection import LengthBucketedQueue

BUDGET, ROOM = 40, 200
SIZES = st.integers(1, 50)
WHICH = st.integers(0, 1 << 30)


@dataclass
class Place:
    """Where the model says a job is: waiting, or with a worker."""

    job: Job
    at: str


class DeskMachine(RuleBasedStateMachine):
    """What a worker finds at once; how it waits is for the tests below."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.count = 0
        self.places: dict[int, Place] = {}
        self.is_out_of_order = False
        self.desk = RequestQueue(LengthBucketedQueue(BUDGET), Admission(Limits(ROOM, 60.0)), lambda: self.now_s)

    def at(self, where: str) -> list[Job]:
        return [place.job for place in self.places.values() if place.at == where]

    def live(self) -> list[Job]:
        return [job for job in self.at("waiting") if job.deadline_s > self.now_s]

    @rule(sizes=st.lists(SIZES, min_size=1, max_size=5), seconds=st.integers(1, 20))
    def submit(self, sizes: list[int], seconds: int) -> None:
        before = self.desk.tokens
        try:
            self.desk.admit(sizes, seconds, 1)
        except Overloaded:
            assert before > 0
            assert self.desk.tokens == before
            return
        assert before == 0 or before + sum(sizes) <= ROOM
        jobs = []
        for size in sizes:
            future: Any = Future()
            jobs.append(Job(self.count, "", size, self.now_s, self.now_s + seconds, future))
            self.count += 1
        self.desk.enter(jobs)
        self.places |= {job.number: Place(job, "waiting") for job in jobs}

    @rule()
    def take(self) -> None:
        live = self.live()
        batch = self.desk.take_now()
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
    @rule(which=WHICH)
    def lose_worker(self, which: int) -> None:
        job = self.any(self.at("worker"), which)
        job.attempts += 1
        self.desk.put_back([job])
        self.is_out_of_order = True
        self.places[job.number].at = "waiting"

    @precondition(lambda self: self.at("worker"))
    @rule(which=WHICH)
    def put_back(self, which: int) -> None:
        """A worker took it and did not begin it."""
        job = self.any(self.at("worker"), which)
        self.desk.put_back([job])
        self.is_out_of_order = True
        self.places[job.number].at = "waiting"

    @precondition(lambda self: self.places)
    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        """Answered, or given up by its client, wherever it is."""
        job = self.any([place.job for place in self.places.values()], which)
        job.future.cancel()
        self.desk.leave(job)
        del self.places[job.number]

    @precondition(lambda self: self.places)
    @rule(which=WHICH, seconds=st.integers(1, 30))
    def extend(self, which: int, seconds: int) -> None:
        job = self.any([place.job for place in self.places.values()], which)
        before_s, wanted_s = job.deadline_s, self.now_s + seconds
        assert self.desk.extend(job, wanted_s) == (before_s > self.now_s)
        assert job.deadline_s == (max(before_s, wanted_s) if before_s > self.now_s else before_s)

    @rule(seconds=st.integers(1, 5))
    def let_time_pass(self, seconds: int) -> None:
        self.now_s += seconds

    @invariant()
    def tokens_of_all_that_have_not_left(self) -> None:
        assert self.desk.tokens == sum(place.job.tokens for place in self.places.values())

    @invariant()
    def depth_is_what_no_worker_has(self) -> None:
        """A job past its deadline may have been dropped already."""
        assert len(self.live()) <= self.desk.depth <= len(self.at("waiting"))

    @staticmethod
    def any(jobs: list[Job], which: int) -> Job:
        return jobs[which % len(jobs)]


DeskMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestDesk = DeskMachine.TestCase


def desk_and_jobs(count: int) -> tuple[RequestQueue, list[Job]]:
    desk = RequestQueue(LengthBucketedQueue(BUDGET), Admission(Limits(ROOM, 60.0)), lambda: 0.0)
    futures = [asyncio.get_running_loop().create_future() for _ in range(count)]
    return desk, [Job(number, "", BUDGET, 0.0, 1.0, future) for number, future in enumerate(futures)]


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_workers_that_wait__each_get_a_batch_of_what_comes() -> None:
    desk, jobs = desk_and_jobs(3)
    workers = [asyncio.create_task(desk.take()) for _ in range(4)]
    await turns()
    desk.enter(jobs)
    await turns()
    assert [worker.result() for worker in workers[:3]] == [[job] for job in jobs]
    assert not workers[3].done()
    workers[3].cancel()


async def test_worker_that_left_while_it_waited__costs_nobody_a_batch() -> None:
    desk, [job] = desk_and_jobs(1)
    gone, stays = (asyncio.create_task(desk.take()) for _ in range(2))
    await turns()
    gone.cancel()
    await turns()
    desk.enter([job])
    assert await stays == [job]


async def test_worker_that_waits_for_many__gets_none_before_they_are_many() -> None:
    desk, jobs = desk_and_jobs(4)
    many, any_ = asyncio.create_task(desk.take(2)), asyncio.create_task(desk.take())
    await turns()
    desk.enter(jobs[:3])
    await turns()
    assert any_.result() == [jobs[0]]
    assert not many.done()  # two wait
    desk.enter(jobs[3:])
    assert await many == [jobs[1]]


async def test_few_jobs__are_shared_among_the_ready_workers() -> None:
    desk, _ = desk_and_jobs(0)
    desk.admit([1, 1], 1.0, 2)
    jobs = [Job(number, "", 1, 0.0, 1.0, asyncio.get_running_loop().create_future()) for number in range(2)]
    desk.enter(jobs)
    assert [desk.take_now(), desk.take_now()] == [[jobs[0]], [jobs[1]]]


async def test_job_that_is_put_back__wakes_a_worker() -> None:
    desk, [job] = desk_and_jobs(1)
    worker = asyncio.create_task(desk.take())
    await turns()
    desk.put_back([job])
    assert await worker == [job]


async def test_oldest_age__is_that_of_the_job_that_waits_longest() -> None:
    now = [100.0]
    desk = RequestQueue(LengthBucketedQueue(BUDGET), Admission(Limits(ROOM, 60.0)), lambda: now[0])
    assert desk.oldest_age_s == 0.0
    for number in range(2):
        desk.enter([Job(number, "", 1, now[0], 200.0, asyncio.get_running_loop().create_future())])
        now[0] += 3.0
    assert desk.oldest_age_s == 6.0


def test_texts__are_admitted_by_how_many_workers_there_are_now() -> None:
    desk = RequestQueue(LengthBucketedQueue(BUDGET), Admission(Limits(ROOM, max_wait_s=1.5)), lambda: 0.0)
    desk.learn(10, 1.0)
    for _ in range(2):
        desk.admit([10], 60.0, 1)
    with pytest.raises(Overloaded):  # two seconds of work
        desk.admit([10], 60.0, 1)
    desk.admit([10], 60.0, 2)

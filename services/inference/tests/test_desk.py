"""Tests of the desk against a simple model of it: jobs come, are read, scored, put back and leave in any order."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.admission import Admission, Limits
from inference.desk import Desk
from inference.engine import Encoded
from inference.jobs import Job, Overloaded
from inference.selection import Waiting

BUDGET, ROOM = 40, 200
SIZES = st.integers(1, 50)
WHICH = st.integers(0, 1 << 30)


@dataclass
class Place:
    """Where the model says a job is: unread, waiting, or with a worker."""

    job: Job
    at: str


class DeskMachine(RuleBasedStateMachine):
    """No rule takes from a desk that has nothing: that would block, as it should."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.count = 0
        self.places: dict[int, Place] = {}
        self.desk = self.make()

    def make(self) -> Desk:
        return Desk(Waiting(BUDGET), Admission(Limits(ROOM, 60.0)), lambda: self.now_s)

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
        self.places |= {job.number: Place(job, "unread") for job in jobs}

    @precondition(lambda self: self.at("unread"))
    @rule(counted=st.lists(SIZES, min_size=64, max_size=64))
    def read(self, counted: list[int]) -> None:
        jobs = self.take_unread()
        self.desk.put_read([(job, Encoded((0,) * size)) for job, size in zip(jobs, counted, strict=False)])
        for job in jobs:
            self.places[job.number].at = "waiting"

    def take_unread(self) -> list[Job]:
        expected = self.at("unread")
        jobs = self.desk.take_unread()
        assert jobs == expected
        return jobs

    @precondition(lambda self: self.live())
    @rule()
    def take(self) -> None:
        live = self.live()
        batch = self.desk.take_work()
        assert batch
        assert set(batch) <= set(live)
        assert len(batch) == 1 or len(batch) * max(job.tokens for job in batch) <= BUDGET
        assert len(batch) == 1 or not any(job.attempts for job in batch)
        if not any(job.attempts for job in live):
            assert batch[0] is min(live, key=lambda job: job.number)
        for job in batch:
            self.places[job.number].at = "worker"

    @precondition(lambda self: self.at("worker"))
    @rule(which=WHICH)
    def lose_worker(self, which: int) -> None:
        job = self.any(self.at("worker"), which)
        job.attempts += 1
        self.desk.put_back([job])
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
        certain = len(self.at("unread")) + len(self.live())
        assert certain <= self.desk.depth <= len(self.at("unread")) + len(self.at("waiting"))

    @staticmethod
    def any(jobs: list[Job], which: int) -> Job:
        return jobs[which % len(jobs)]


class WorkersReadMachine(DeskMachine):
    """The same with workers that read: what is unread goes first."""

    def make(self) -> Desk:
        return Desk(Waiting(BUDGET), Admission(Limits(ROOM, 60.0)), lambda: self.now_s, has_reader=False)

    def take_unread(self) -> list[Job]:
        expected = self.at("unread")
        jobs = self.desk.take_work()
        assert jobs == expected
        assert jobs is not None
        return jobs

    @precondition(lambda self: self.live() and not self.at("unread"))
    @rule()
    def take(self) -> None:
        super().take()


DeskMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
WorkersReadMachine.TestCase.settings = DeskMachine.TestCase.settings
TestDesk = DeskMachine.TestCase
TestDeskWithoutReader = WorkersReadMachine.TestCase

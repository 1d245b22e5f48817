"""Owns the jobs that wait, between those who bring them and the workers that score them; knows no engine.

It lives on the event loop and needs no lock. Nobody spins: who finds nothing sleeps until something comes.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from inference.batching.admission import Admission
from inference.batching.jobs import Job
from inference.batching.selection import LengthBucketedQueue


class RequestQueue:
    """Jobs wait here once they are taken on, and leave when they are answered or nobody wants them any more."""

    def __init__(self, waiting: LengthBucketedQueue, admission: Admission, now: Callable[[], float]) -> None:
        self._now = now
        self._waiting = waiting
        self._admission = admission
        self._idle: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._prefetch_waiters: deque[tuple[int, asyncio.Future[None]]] = deque()

    def admit(self, sizes: Sequence[int], remaining_s: float, workers: int) -> None:
        """Take on texts of about `sizes` tokens. Each must `enter` and, in the end, `leave`.

        Raises Overloaded, and DeadlineExceeded for what can't be done in time.
        """
        self._admission.workers = workers
        self._admission.admit(sizes, remaining_s)

    def retry_after_s(self, sizes: Sequence[int], remaining_s: float) -> float | None:
        """Of the Overloaded that `admit` would raise; None if it would not, infinity if it would never do."""
        return self._admission.retry_after_s(sizes, remaining_s)

    @property
    def near_capacity(self) -> bool:
        """Refusals are near."""
        return self._admission.near_capacity

    def enter(self, jobs: Sequence[Job]) -> None:
        """Queue admitted jobs."""
        for job in jobs:
            self._waiting.add(job)
        self._wake(len(jobs))

    def extend(self, job: Job, deadline_s: float) -> bool:
        """Someone else waits for `job` too, until `deadline_s`. False: it is too late, the job may be dropped."""
        if job.deadline_s <= self._now():
            return False
        job.deadline_s = max(job.deadline_s, deadline_s)
        return True

    def leave(self, job: Job) -> None:
        """Forget `job`, wherever it is, and the room it took. Call it exactly once."""
        self._waiting.remove(job)
        self._admission.release(job.tokens)

    async def take(self, beyond: int = 0) -> list[Job]:
        """For a worker: the next batch, once more than `beyond` jobs wait."""
        while self.depth <= beyond or not (batch := self.take_now()):
            idle = asyncio.get_running_loop().create_future()
            (self._prefetch_waiters if beyond else self._idle).append((beyond, idle))
            await idle
        return batch

    def take_now(self) -> list[Job]:
        """The next batch; empty when nothing waits. Those past their deadline, or unwanted, are dropped on the way."""
        while True:
            batch = self._waiting.take(self._now(), self._admission.workers)
            wanted = [job for job in batch if not job.future.done()]
            if wanted or not batch:
                return wanted

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Whoever took them could not score them: they are next, in their old order."""
        for job in reversed(jobs):
            if not job.future.done():
                self._waiting.put_back(job)
        self._wake(len(jobs))

    def learn(self, tokens: int, seconds: float) -> None:
        """A batch of about `tokens` took `seconds`."""
        self._admission.learn(tokens, seconds)

    @property
    def depth(self) -> int:
        """Jobs that are not being scored yet."""
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        """About how many tokens are on their way, those being scored included."""
        return self._admission.tokens

    @property
    def oldest_age_s(self) -> float:
        """How long the oldest job has waited."""
        oldest = self._waiting.oldest
        return self._now() - oldest.submitted_s if oldest is not None else 0.0

    @property
    def wait_s(self) -> float:
        """Predicted for the next request."""
        return self._admission.wait_s

    def _wake(self, jobs: int) -> None:
        """One worker for each job, those first that take any; who then finds too few left waits again."""
        for workers in (self._idle, self._prefetch_waiters):
            while jobs and workers and self.depth > workers[0][0]:
                _, idle = workers.popleft()
                if not idle.done():
                    idle.set_result(None)
                    jobs -= 1

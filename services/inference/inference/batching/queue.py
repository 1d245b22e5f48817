"""Jobs waiting for a worker, and the choice of the next batch.

Every batch starts with the oldest job, so a job waits for at most as many batches as there were older jobs. The rest
of the batch has about the same length, because a batch costs its longest text times its size.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from inference.batching.jobs import Job


class RequestQueue:
    """Waiting jobs by age and by length. It belongs to the event loop and needs no lock.

    `workers` take batches. Adding, removing and finding the oldest job take constant time.
    """

    def __init__(self, max_batch_tokens: int, now: Callable[[], float]) -> None:
        self.workers = 1
        self._now = now
        self._max_batch_tokens = max_batch_tokens
        self._by_age: OrderedDict[int, Job] = OrderedDict()
        self._by_length: dict[int, OrderedDict[int, Job]] = {}
        self._idle: list[tuple[int, asyncio.Future[None]]] = []
        self._prefetching: list[tuple[int, asyncio.Future[None]]] = []

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Append admitted jobs."""
        for job in jobs:
            self._add(job)
        self._wake(len(jobs))

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Return taken jobs to the front, in their old order."""
        for job in reversed(jobs):
            if not job.future.done():
                self._add(job)
                self._by_age.move_to_end(job.number, last=False)
                self._by_length[job.tokens].move_to_end(job.number, last=False)
        self._wake(len(jobs))

    def extend(self, job: Job, deadline_s: float) -> bool:
        """Keep `job` until `deadline_s` for another waiter. False if it expired and may have been dropped."""
        if job.deadline_s <= self._now():
            return False
        job.deadline_s = max(job.deadline_s, deadline_s)
        return True

    def remove(self, job: Job) -> None:
        """Remove `job` if it is here."""
        if self._by_age.pop(job.number, None) is not None:
            same_length = self._by_length[job.tokens]
            del same_length[job.number]
            if not same_length:
                del self._by_length[job.tokens]

    async def take(self, min_backlog: int = 0) -> list[Job]:
        """Return the next batch once more than `min_backlog` jobs wait."""
        while self.depth <= min_backlog or not (batch := self.take_now()):
            idle = asyncio.get_running_loop().create_future()
            (self._prefetching if min_backlog else self._idle).append((min_backlog, idle))
            await idle
        return batch

    def take_now(self) -> list[Job]:
        """Remove and return the next batch, empty only if no live job waits.

        Expired and withdrawn jobs are dropped. Padded, a batch holds at most `max_batch_tokens`, or one longer job. It
        is at most one worker's share of the waiting jobs, because another worker may be free sooner. A job whose engine
        died goes alone.
        """
        while (first := next(iter(self._by_age.values()), None)) is not None and not self._is_live(first):
            self.remove(first)
        if first is None:
            return []
        share = -(-self.depth // max(1, self.workers))
        batch = [first]
        self.remove(first)
        if first.attempts:
            return batch
        longest = first.tokens
        for job in self._nearest(first.tokens):
            if len(batch) == share or job.attempts:
                break
            if (len(batch) + 1) * max(longest, job.tokens) > self._max_batch_tokens:
                break
            self.remove(job)
            if self._is_live(job):
                batch.append(job)
                longest = max(longest, job.tokens)
        return batch

    @property
    def depth(self) -> int:
        """Jobs not being scored yet."""
        return len(self._by_age)

    def _add(self, job: Job) -> None:
        self._by_age[job.number] = job
        self._by_length.setdefault(job.tokens, OrderedDict())[job.number] = job

    def _is_live(self, job: Job) -> bool:
        return job.deadline_s > self._now() and not job.future.done()

    def _nearest(self, tokens: int) -> Iterator[Job]:
        """Jobs of similar length, nearest first, oldest first among equals. The caller removes each as it takes it.

        Padding stays below about a fifth, or 8 tokens.
        """
        shortest, longest = min(tokens * 4 // 5, tokens - 8), max(tokens * 5 // 4, tokens + 8)
        for distance in range(max(tokens - shortest, longest - tokens) + 1):
            for length in dict.fromkeys((tokens - distance, tokens + distance)):
                while shortest <= length <= longest and length in self._by_length:
                    yield next(iter(self._by_length[length].values()))

    def _wake(self, jobs: int) -> None:
        """Wake one worker per job, idle ones before those that prefetch. One that finds too few jobs waits again.

        The last to become idle goes first: its core still has the model in its caches.
        """
        for workers in (self._idle, self._prefetching):
            while jobs and workers and self.depth > workers[-1][0]:
                _, idle = workers.pop()
                if not idle.done():
                    idle.set_result(None)
                    jobs -= 1

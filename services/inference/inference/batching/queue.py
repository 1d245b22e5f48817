"""Jobs waiting for a worker, and the choice of the next batch.

Every batch starts with the oldest job, so a job waits for at most as many batches as there were older jobs. The rest
of the batch has about the same length, because a batch costs its longest text times its size.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from inference.batching.admission import Admission
from inference.batching.jobs import Job


class LengthBucketedQueue:
    """Jobs by age and by length. Adding, removing and finding the oldest take constant time."""

    def __init__(self, max_batch_tokens: int) -> None:
        self._max_batch_tokens = max_batch_tokens
        self._by_age: OrderedDict[int, Job] = OrderedDict()
        self._by_length: dict[int, OrderedDict[int, Job]] = {}

    def __len__(self) -> int:
        return len(self._by_age)

    @property
    def oldest(self) -> Job | None:
        return next(iter(self._by_age.values()), None)

    def add(self, job: Job) -> None:
        """Append `job`."""
        self._by_age[job.number] = job
        self._by_length.setdefault(job.tokens, OrderedDict())[job.number] = job

    def put_back(self, job: Job) -> None:
        """Insert `job` at the front."""
        self.add(job)
        self._by_age.move_to_end(job.number, last=False)
        self._by_length[job.tokens].move_to_end(job.number, last=False)

    def remove(self, job: Job) -> None:
        """Remove `job` if it is here."""
        if self._by_age.pop(job.number, None) is not None:
            same_length = self._by_length[job.tokens]
            del same_length[job.number]
            if not same_length:
                del self._by_length[job.tokens]

    def take(self, now: float, workers: int = 1) -> list[Job]:
        """Remove and return the next batch, empty only if no live job waits. Jobs past their deadline are dropped.

        Padded, a batch holds at most `max_batch_tokens`, or one longer job. It is at most one worker's share of the
        waiting jobs, because another worker may be free sooner. A job whose engine died goes alone.
        """
        while (first := self.oldest) is not None and first.deadline_s <= now:
            self.remove(first)
        if first is None:
            return []
        share = -(-len(self) // max(1, workers))
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
            if job.deadline_s > now:
                batch.append(job)
                longest = max(longest, job.tokens)
        return batch

    def _nearest(self, tokens: int) -> Iterator[Job]:
        """Jobs of similar length, nearest first, oldest first among equals. The caller removes each as it takes it."""
        shortest, longest = _similar(tokens)
        for distance in range(max(tokens - shortest, longest - tokens) + 1):
            for length in dict.fromkeys((tokens - distance, tokens + distance)):
                while shortest <= length <= longest and length in self._by_length:
                    yield next(iter(self._by_length[length].values()))


def _similar(tokens: int) -> tuple[int, int]:
    """Lengths that may share a batch with `tokens`: padding stays below about a fifth, or 8 tokens."""
    return min(tokens * 4 // 5, tokens - 8), max(tokens * 5 // 4, tokens + 8)


class RequestQueue:
    """Admitted jobs until they are answered or withdrawn. It belongs to the event loop and needs no lock."""

    def __init__(self, max_batch_tokens: int, admission: Admission, now: Callable[[], float]) -> None:
        self._now = now
        self._waiting = LengthBucketedQueue(max_batch_tokens)
        self._admission = admission
        self._idle: list[tuple[int, asyncio.Future[None]]] = []
        self._prefetching: list[tuple[int, asyncio.Future[None]]] = []

    def admit(self, sizes: Sequence[int], remaining_s: float, workers: int) -> None:
        """Admit texts of about `sizes` tokens. Each must `enqueue` and finally `leave`.

        Raises Overloaded, and DeadlineExceeded for what can't be done in time.
        """
        self._admission.workers = workers
        self._admission.admit(sizes, remaining_s)

    def retry_after_s(self, sizes: Sequence[int], remaining_s: float) -> float | None:
        """Return `retry_after_s` of the Overloaded that `admit` would raise: None if it would not, inf for never."""
        return self._admission.retry_after_s(sizes, remaining_s)

    @property
    def near_capacity(self) -> bool:
        """Refusals are near."""
        return self._admission.near_capacity

    def enqueue(self, jobs: Sequence[Job]) -> None:
        """Add admitted jobs."""
        for job in jobs:
            self._waiting.add(job)
        self._wake(len(jobs))

    def extend(self, job: Job, deadline_s: float) -> bool:
        """Keep `job` until `deadline_s` for another waiter. False if it expired and may have been dropped."""
        if job.deadline_s <= self._now():
            return False
        job.deadline_s = max(job.deadline_s, deadline_s)
        return True

    def leave(self, job: Job) -> None:
        """Remove `job`, waiting or not, and free its share of the capacity. Call it exactly once."""
        self._waiting.remove(job)
        self._admission.release(job.tokens)

    async def take(self, min_backlog: int = 0) -> list[Job]:
        """Return the next batch once more than `min_backlog` jobs wait."""
        while self.depth <= min_backlog or not (batch := self.take_now()):
            idle = asyncio.get_running_loop().create_future()
            (self._prefetching if min_backlog else self._idle).append((min_backlog, idle))
            await idle
        return batch

    def take_now(self) -> list[Job]:
        """Return the next batch, empty when nothing waits. Expired and withdrawn jobs are dropped."""
        while True:
            batch = self._waiting.take(self._now(), self._admission.workers)
            wanted = [job for job in batch if not job.future.done()]
            if wanted or not batch:
                return wanted

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Return taken jobs to the front, in their old order."""
        for job in reversed(jobs):
            if not job.future.done():
                self._waiting.put_back(job)
        self._wake(len(jobs))

    def learn(self, tokens: int, seconds: float) -> None:
        """Record that a batch of about `tokens` took `seconds`."""
        self._admission.learn(tokens, seconds)

    @property
    def depth(self) -> int:
        """Jobs not being scored yet."""
        return len(self._waiting)

    @property
    def tokens(self) -> int:
        """Estimated tokens waiting or being scored."""
        return self._admission.tokens

    @property
    def oldest_age_s(self) -> float:
        """Age of the oldest waiting job."""
        oldest = self._waiting.oldest
        return self._now() - oldest.submitted_s if oldest is not None else 0.0

    @property
    def wait_s(self) -> float:
        """Predicted wait of the next request."""
        return self._admission.wait_s

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

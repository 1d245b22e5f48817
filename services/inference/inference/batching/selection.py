"""Owns the jobs that wait for a worker and chooses the next batch; knows no threads, no clock and no engine.

Every batch starts with the oldest job, so a job waits for at most as many batches as there were older jobs:
nothing starves, however long it is. It is filled with the jobs whose length is nearest, because a batch costs
its longest text times its size.
"""

from collections import OrderedDict
from collections.abc import Iterator

from inference.batching.jobs import Job


class LengthBucketedQueue:
    """Jobs by age and by length; adding, removing and finding the oldest take constant time."""

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
        """Put `job` at the back."""
        self._by_age[job.number] = job
        self._by_length.setdefault(job.tokens, OrderedDict())[job.number] = job

    def put_back(self, job: Job) -> None:
        """Put a job whose worker died at the front: it was the oldest when it was taken."""
        self.add(job)
        self._by_age.move_to_end(job.number, last=False)
        self._by_length[job.tokens].move_to_end(job.number, last=False)

    def remove(self, job: Job) -> None:
        """Forget `job`, if it is here: nobody wants its answer any more."""
        if self._by_age.pop(job.number, None) is not None:
            same_length = self._by_length[job.tokens]
            del same_length[job.number]
            if not same_length:
                del self._by_length[job.tokens]

    def take(self, now: float, workers: int = 1) -> list[Job]:
        """The next batch; it leaves, and so do the jobs found past their deadline on the way.

        It is empty only if no live job waits. A job that was put back goes alone. Padded, a batch holds at
        most `max_batch_tokens`, or it is one job that is longer than that on its own. Of few jobs it is the
        share of one of the `workers`: a text is answered with its batch, and the next worker may be free sooner.
        """
        while (first := self.oldest) is not None and first.deadline_s <= now:
            self.remove(first)
        if first is None:
            return []
        share = -(-len(self) // max(1, workers))
        batch = [first]
        self.remove(first)
        if first.attempts:  # it may be what killed its worker: let it take nobody with it
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
        """Jobs of like length, nearest first, oldest first among equals; the caller removes each as it takes it."""
        shortest, longest = _alike(tokens)
        for distance in range(max(tokens - shortest, longest - tokens) + 1):
            for length in dict.fromkeys((tokens - distance, tokens + distance)):
                while shortest <= length <= longest and length in self._by_length:
                    yield next(iter(self._by_length[length].values()))


def _alike(tokens: int) -> tuple[int, int]:
    """The lengths that may share a batch with `tokens`: padding stays below about a fifth, or 8 tokens."""
    return min(tokens * 4 // 5, tokens - 8), max(tokens * 5 // 4, tokens + 8)

"""Owns texts from admission to outcome, as the rest of the service sees them; knows no HTTP and no runtime."""

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from inference.batching.admission import Admission, Limits, estimate
from inference.batching.isolation import Outcomes
from inference.batching.jobs import Job, Outcome, Scored, ScoringFailed
from inference.batching.queue import RequestQueue
from inference.batching.selection import LengthBucketedQueue
from inference.batching.worker import OnWorker, Restarts, Worker
from inference.engines.base import EngineClient, ModelCard, Row

_ATTEMPTS: Final = 2
_MANY: Final = 4  # jobs that wait for each worker: then it need not choose late


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One scored batch: how many texts, their tokens, those it would cost with padding, and the seconds it took."""

    size: int
    tokens: int
    padded_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class BatchingConfig:
    """How much is done at once: workers, batches that each is over, and about how many tokens in one."""

    workers: int
    max_batch_tokens: int
    limits: Limits
    lanes: int = 1


class Batcher:
    """`start` it on the loop it shall answer on, `submit` texts, `close` it."""

    def __init__(
        self,
        create: Callable[[], Awaitable[EngineClient]],
        sizes: BatchingConfig,
        now: Callable[[], float],
        *,
        on_read: Callable[[float], None] = lambda _seconds: None,
        on_batch: Callable[[BatchReport], None] = lambda _report: None,
        on_worker: OnWorker = lambda _event: None,
        restarts: Restarts | None = None,
    ) -> None:
        self.desk = RequestQueue(LengthBucketedQueue(sizes.max_batch_tokens), Admission(sizes.limits), now)
        self._now = now
        self._on_batch = on_batch
        self._numbers = itertools.count()
        self._jobs: set[Job] = set()
        self._workers = [
            Worker(f"scorer-{n}", create, self, on_worker, restarts or Restarts(), now, sizes.lanes)
            for n in range(sizes.workers)
        ]
        self.was_read = on_read
        self.card: ModelCard  # set by `start`

    async def start(self) -> ModelCard:
        """Make and warm one engine per worker, all at once. Raises what making an engine raises."""
        try:
            found = await asyncio.gather(*(worker.start() for worker in self._workers), return_exceptions=True)
            cards = []
            for card in found:
                if isinstance(card, BaseException):
                    raise card
                cards.append(card)
        except BaseException:
            await self.close()
            raise
        self.card = cards[0]
        return self.card

    async def close(self) -> None:
        """End the workers; what is still on its way is cancelled."""
        await asyncio.gather(*(worker.close() for worker in self._workers))
        for job in self._jobs:
            job.future.cancel()

    @property
    def state(self) -> Literal["ok", "failed"]:
        """Failed while any worker has no working engine, or hangs."""
        return "ok" if all(worker.is_well() for worker in self._workers) else "failed"

    @property
    def is_lost(self) -> bool:
        """A worker hangs, and only a new process helps."""
        return any(worker.is_lost() for worker in self._workers)

    @property
    def ready_workers(self) -> int:
        """Workers with a warm engine."""
        return sum(worker.is_ready for worker in self._workers)

    def submit(self, texts: Sequence[str], deadline_s: float) -> list[Job]:
        """Take on all of `texts` or none. Cancel a job's future to withdraw it.

        Raises Overloaded, and DeadlineExceeded for what can't be done in time. A job whose deadline passes before it is
        scored never ends by itself: who waits for it has a clock.
        """
        now = self._now()
        sizes = [self._estimate(text) for text in texts]
        self.desk.admit(sizes, deadline_s - now, self.ready_workers)
        loop = asyncio.get_running_loop()
        jobs = [
            Job(next(self._numbers), text, size, now, deadline_s, loop.create_future())
            for text, size in zip(texts, sizes, strict=True)
        ]
        for job in jobs:
            self._jobs.add(job)
            job.future.add_done_callback(functools.partial(self._leave, job))
        self.desk.enter(jobs)
        return jobs

    def retry_after_s(self, texts: Sequence[str], deadline_s: float) -> float | None:
        """Of the Overloaded that `submit` would raise; None if it would not, infinity if it would be late anyway."""
        return self.desk.retry_after_s([self._estimate(text) for text in texts], deadline_s - self._now())

    def _estimate(self, text: str) -> int:
        return estimate(text, self.card.max_tokens)

    def _leave(self, job: Job, _future: asyncio.Future[Outcome]) -> None:
        self._jobs.discard(job)
        self.desk.leave(job)

    # ---- for the workers

    async def take(self, *, ahead: bool) -> list[Job]:
        return await self.desk.take(_MANY * len(self._workers) if ahead else 0)

    def deliver(self, outcomes: Outcomes, started_s: float, seconds: float) -> None:
        for job, row in outcomes.items():
            if not job.future.done():
                job.future.set_result(_outcome(job, row, started_s, seconds))
        tokens = [row.tokens for row in outcomes.values() if isinstance(row, Row)]
        self._on_batch(BatchReport(len(outcomes), sum(tokens), len(tokens) * max(tokens, default=0), seconds))

    def put_back(self, jobs: Sequence[Job]) -> None:
        self.desk.put_back(jobs)

    def give_back(self, jobs: Sequence[Job]) -> None:
        """Each goes alone next time; those that saw two engines die have failed."""
        for job in jobs:
            job.attempts += 1
            if job.attempts >= _ATTEMPTS and not job.future.done():
                job.future.set_result(ScoringFailed("its worker died twice"))
        self.desk.put_back(jobs)

    def learn(self, tokens: int, seconds: float) -> None:
        self.desk.learn(tokens, seconds)


def _outcome(job: Job, row: Row | ScoringFailed, started_s: float, seconds: float) -> Outcome:
    if isinstance(row, ScoringFailed):
        return row
    return Scored(row.scores, row.tokens, row.truncated, started_s - job.submitted_s, seconds)

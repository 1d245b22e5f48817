"""Texts from admission to outcome: admits them, queues them, and runs the workers that score them."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Final, Literal

from inference.batching.admission import Admission, estimate
from inference.batching.jobs import Job
from inference.batching.queue import RequestQueue
from inference.batching.worker import OnBatch, OnEvent, Worker
from inference.engines.base import EngineSpec, ModelCard

_MANY_JOBS: Final = 4  # waiting per worker: then a worker takes its next batch before it has finished one


class Batcher:
    """`start` it on the loop that will await its jobs, `submit` texts, `close` it."""

    def __init__(
        self,
        spec: EngineSpec,
        max_wait_s: float,
        now: Callable[[], float],
        *,
        on_batch: OnBatch = lambda _size: None,
        on_event: OnEvent = lambda _event: None,
    ) -> None:
        self.admission = Admission(max_wait_s)
        self.queue = RequestQueue(spec.max_batch_tokens, now)
        self._now = now
        self._numbers = itertools.count()
        self._jobs: set[Job] = set()
        self._workers = [
            Worker(
                f"scorer-{number}",
                spec,
                self.queue,
                self.admission.learn,
                now,
                backlogs=[0, *[_MANY_JOBS * spec.workers] * (spec.pipeline_depth - 1)],
                on_batch=on_batch,
                on_event=on_event,
            )
            for number in range(spec.workers)
        ]
        self.card: ModelCard  # set by `start`

    async def start(self) -> ModelCard:
        """Create and warm one engine per worker, concurrently. Raises what creating an engine raises."""
        try:
            results = await asyncio.gather(*(worker.start() for worker in self._workers), return_exceptions=True)
            cards = []
            for card in results:
                if isinstance(card, BaseException):
                    raise card
                cards.append(card)
        except BaseException:
            await self.close()
            raise
        self.card = cards[0]
        return self.card

    async def close(self) -> None:
        """Stop the workers and cancel every job that has no outcome."""
        await asyncio.gather(*(worker.close() for worker in self._workers))
        for job in self._jobs:
            job.future.cancel()

    @property
    def state(self) -> Literal["ok", "failed"]:
        """Failed while any worker has no working engine or is stuck."""
        return "ok" if self.ready_workers == len(self._workers) else "failed"

    @property
    def is_lost(self) -> bool:
        """A worker hangs or has failed, and only a new process helps."""
        return any(worker.is_lost for worker in self._workers)

    @property
    def ready_workers(self) -> int:
        """Workers that have a warm engine and are not stuck."""
        return sum(worker.is_ready for worker in self._workers)

    def submit(self, texts: Sequence[str], deadline_s: float) -> list[Job]:
        """Admit all of `texts` or none. Cancel a job's future to withdraw it.

        Raises Overloaded, and DeadlineExceeded for what can't be done in time. A job that expires before it is scored
        gets no outcome, so the caller needs its own timeout.
        """
        now = self._now()
        sizes = [self._estimate(text) for text in texts]
        self.admission.workers = self.queue.workers = self.ready_workers
        self.admission.admit(sizes, deadline_s - now)
        loop = asyncio.get_running_loop()
        jobs = [
            Job(next(self._numbers), text, size, now, deadline_s, loop.create_future())
            for text, size in zip(texts, sizes, strict=True)
        ]
        for job in jobs:
            self._jobs.add(job)
            job.future.add_done_callback(lambda _future, job=job: self._leave(job))  # type: ignore[misc]
        self.queue.enqueue(jobs)
        return jobs

    def retry_after_s(self, texts: Sequence[str], deadline_s: float) -> float | None:
        """Return `retry_after_s` of the Overloaded that `submit` would raise: None if it would not, inf for never."""
        return self.admission.retry_after_s([self._estimate(text) for text in texts], deadline_s - self._now())

    def _estimate(self, text: str) -> int:
        return estimate(text, self.card.max_tokens)

    def _leave(self, job: Job) -> None:
        self._jobs.discard(job)
        self.queue.remove(job)
        self.admission.release(job.tokens)

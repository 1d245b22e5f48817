"""Owns texts from admission to outcome, as the event loop sees them: tokenised, then scored, in other threads.

It knows no HTTP and no runtime. Outcomes come back to the loop in one call per batch.
"""

import asyncio
import functools
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from inference.admission import Admission, Limits
from inference.bisection import Outcomes, encoded
from inference.desk import Desk
from inference.engine import Encoded, Engine, ModelCard
from inference.jobs import Job, Outcome, Scored, ScoringFailed
from inference.selection import Waiting
from inference.workers import OnWorker, Restarts, Worker

CHARACTERS_PER_TOKEN: Final = 4  # a guess at admission; corrected once the text is read
_ATTEMPTS: Final = 2
_JOIN_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One scored batch: how many texts, their tokens, those it cost with padding, and the seconds it took."""

    size: int
    tokens: int
    padded_tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done at once. With `has_reader` a thread of its own tokenises, else workers do when they are free."""

    workers: int
    max_batch_tokens: int
    limits: Limits
    has_reader: bool = False


class Batcher:
    """`start` it on the loop it shall answer on, `submit` texts, `close` it."""

    def __init__(
        self,
        create: Callable[[], Engine],
        sizes: Sizes,
        now: Callable[[], float],
        *,
        on_read: Callable[[float], None] = lambda _seconds: None,
        on_batch: Callable[[BatchReport], None] = lambda _report: None,
        on_worker: OnWorker = lambda _event: None,
        restarts: Restarts | None = None,
    ) -> None:
        self.desk = Desk(Waiting(sizes.max_batch_tokens), Admission(sizes.limits), now, has_reader=sizes.has_reader)
        self._now = now
        self._on_read = on_read
        self._on_batch = on_batch
        self._numbers = itertools.count()
        self._jobs: set[Job] = set()
        restarts = restarts or Restarts()
        self._workers = [
            Worker(
                f"scorer-{n}", create, self.desk, self._read, self._deliver, self._give_back, on_worker, restarts, now
            )
            for n in range(sizes.workers)
        ]
        self.card: ModelCard  # set by `start`
        self._readers = (
            [threading.Thread(target=self._read_all, name="reader", daemon=True)] if sizes.has_reader else []
        )

    async def start(self) -> ModelCard:
        """Make and warm one engine per worker, all at once. Raises what making an engine raises."""
        self._loop = asyncio.get_running_loop()
        for worker in self._workers:
            worker.start()
        started = [asyncio.wrap_future(worker.started) for worker in self._workers]
        try:
            await asyncio.gather(*started)
        except BaseException:
            await self.close()
            raise
        for reader in self._readers:
            reader.start()
        self.card = self._engine().card
        return self.card

    async def close(self) -> None:
        """Send the threads home and wait for them; what is still on its way is cancelled."""
        for worker in self._workers:
            worker.stop()
        self.desk.close()
        threads: list[threading.Thread | Worker] = [*self._readers, *self._workers]
        threads = [thread for thread in threads if thread.is_alive()]
        await asyncio.gather(*(asyncio.to_thread(thread.join, _JOIN_S) for thread in threads))
        for job in self._jobs:
            job.future.cancel()

    @property
    def state(self) -> Literal["ok", "failed"]:
        """Failed while any worker has no working engine, or hangs, or nobody reads."""
        reads = all(reader.is_alive() for reader in self._readers)
        return "ok" if reads and all(worker.is_well() for worker in self._workers) else "failed"

    @property
    def is_lost(self) -> bool:
        """A worker hangs, and only a new process helps."""
        return any(worker.is_lost() for worker in self._workers)

    @property
    def ready_workers(self) -> int:
        """Workers with a warm engine."""
        return sum(worker.is_ready for worker in self._workers)

    def submit(self, texts: Sequence[str], deadline_s: float) -> list[Job]:
        """Take on all of `texts` or raise Overloaded. Cancel a job's future to withdraw it.

        A job whose deadline passes before it is scored never ends by itself: who waits for it has a clock.
        """
        now = self._now()
        sizes = [self._estimate(text) for text in texts]
        self.desk.admit(sizes, deadline_s - now, self.ready_workers)
        jobs = [
            Job(next(self._numbers), text, size, now, deadline_s, self._loop.create_future())
            for text, size in zip(texts, sizes, strict=True)
        ]
        for job in jobs:
            self._jobs.add(job)
            job.future.add_done_callback(functools.partial(self._leave, job))
        self.desk.enter(jobs)
        return jobs

    def check(self, text: str, deadline_s: float) -> None:
        """Raises Overloaded where `submit` would."""
        self.desk.check([self._estimate(text)], deadline_s - self._now())

    def _estimate(self, text: str) -> int:
        return min(self.card.max_tokens, 2 + len(text) // CHARACTERS_PER_TOKEN)

    def _leave(self, job: Job, _future: asyncio.Future[Outcome]) -> None:
        self._jobs.discard(job)
        self.desk.leave(job)

    def _engine(self) -> Engine:
        return next(worker.engine for worker in self._workers if worker.engine is not None)

    # ---- in the reader's thread or in a worker's

    def _read_all(self) -> None:
        while (jobs := self.desk.take_unread()) is not None:
            self._read(self._engine(), jobs)

    def _read(self, engine: Engine, jobs: Sequence[Job]) -> None:
        started_s = self._now()
        read, failed = _encode(engine, jobs)
        self._on_read(self._now() - started_s)
        if read:
            self.desk.put_read(read)
        if failed:
            self._post([(job, ScoringFailed("unreadable")) for job in failed], None)

    # ---- in a worker's thread

    def _deliver(self, outcomes: Outcomes, started_s: float, seconds: float) -> None:
        tokens = [job.tokens for job in outcomes]
        results: list[tuple[Job, Outcome]] = [
            (job, row if isinstance(row, ScoringFailed) else _scored(job, row, started_s, seconds))
            for job, row in outcomes.items()
        ]
        self._post(results, BatchReport(len(tokens), sum(tokens), len(tokens) * max(tokens), seconds))

    def _give_back(self, batch: Sequence[Job]) -> None:
        for job in batch:
            job.attempts += 1
        self.desk.put_back([job for job in batch if job.attempts < _ATTEMPTS])
        spent = [job for job in batch if job.attempts >= _ATTEMPTS]
        self._post([(job, ScoringFailed("its worker died twice")) for job in spent], None)

    def _post(self, results: Sequence[tuple[Job, Outcome]], report: BatchReport | None) -> None:
        self._loop.call_soon_threadsafe(self._settle, results, report)

    # ---- on the loop

    def _settle(self, results: Sequence[tuple[Job, Outcome]], report: BatchReport | None) -> None:
        for job, outcome in results:
            if not job.future.done():
                job.future.set_result(outcome)
        if report is not None:
            self._on_batch(report)


def _scored(job: Job, row: tuple[float, ...], started_s: float, seconds: float) -> Scored:
    text = encoded(job)
    return Scored(row, text.tokens, text.truncated, started_s - job.submitted_s, seconds)


def _encode(engine: Engine, jobs: Sequence[Job]) -> tuple[list[tuple[Job, Encoded]], list[Job]]:
    """Tokenise all at once; if that raises, one by one, so that only what can't be read fails."""
    try:
        return list(zip(jobs, engine.encode([job.text for job in jobs]), strict=True)), []
    except BaseException:  # a panic of the tokenizer is no Exception, and would end this thread for good
        if len(jobs) == 1:
            return [], list(jobs)
        halves = [_encode(engine, [job]) for job in jobs]
        return [pair for read, _ in halves for pair in read], [job for _, failed in halves for job in failed]

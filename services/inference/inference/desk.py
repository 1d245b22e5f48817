"""Owns the jobs on their way, between the event loop that brings them and the threads that read and score them.

One lock guards everything; it is held for microseconds, never while a text is read or scored. Nobody spins: who
finds nothing sleeps until something comes. It knows no engine and no event loop.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from inference.admission import Admission
from inference.engine import Encoded
from inference.jobs import Job
from inference.selection import Waiting

_READ_AT_ONCE: Final = 64


class Desk:
    """Jobs come in unread, wait once they are read, leave when they are answered or nobody wants them any more.

    With `has_reader` unread jobs are for a thread of its own; without, for the worker that is free first.
    """

    def __init__(
        self, waiting: Waiting, admission: Admission, now: Callable[[], float], *, has_reader: bool = True
    ) -> None:
        self._now = now
        self._waiting = waiting
        self._admission = admission
        self._unread: OrderedDict[int, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._batch_ready = threading.Condition(self._lock)
        self._text_came = threading.Condition(self._lock) if has_reader else self._batch_ready
        self._has_reader = has_reader
        self._closed = False

    def admit(self, sizes: Sequence[int], remaining_s: float, workers: int) -> None:
        """Take on texts of about `sizes` tokens, or raise Overloaded. Each must `enter` and, in the end, `leave`."""
        with self._lock:
            self._admission.workers = workers
            self._admission.admit(sizes, remaining_s)

    def check(self, sizes: Sequence[int], remaining_s: float) -> None:
        """Raises Overloaded where `admit` would."""
        with self._lock:
            self._admission.check(sizes, remaining_s)

    @property
    def is_pressed(self) -> bool:
        """Refusals are near."""
        return self._admission.is_pressed

    def enter(self, jobs: Sequence[Job]) -> None:
        """Queue admitted jobs to be read."""
        with self._lock:
            self._unread.update((job.number, job) for job in jobs)
            self._text_came.notify()

    def extend(self, job: Job, deadline_s: float) -> bool:
        """Someone else waits for `job` too, until `deadline_s`. False: it is too late, the job may be dropped."""
        with self._lock:
            if job.deadline_s <= self._now():
                return False
            job.deadline_s = max(job.deadline_s, deadline_s)
            return True

    def leave(self, job: Job) -> None:
        """Forget `job`, wherever it is, and the room it took. Call it exactly once."""
        with self._lock:
            self._unread.pop(job.number, None)
            self._waiting.remove(job)
            self._admission.release(job.tokens)

    def take_unread(self) -> list[Job] | None:
        """For the reader: block until there is something to read; None once closed."""
        with self._lock:
            while not self._unread and not self._closed:
                self._text_came.wait()
            if self._closed:
                return None
            return self._pop_unread()

    def put_read(self, job_texts: Sequence[tuple[Job, Encoded]]) -> None:
        """The tokens of these are counted; who left meanwhile stays away."""
        with self._lock:
            for job, text in job_texts:
                if not job.future.done():
                    self._admission.correct(job.tokens, text.tokens)
                    job.tokens, job.encoded = text.tokens, text
                    self._waiting.add(job)
            self._batch_ready.notify(len(job_texts) - (not self._has_reader))  # a worker that read goes on itself

    def take_work(self) -> list[Job] | None:
        """For a worker: block until there are jobs to score, or unread ones if it has to read them; None once closed.

        All of them are unread, or none; unread ones go first, so that like lengths meet. Those past their deadline are
        dropped.
        """
        with self._lock:
            while not self._closed:
                if self._unread and not self._has_reader:
                    return self._pop_unread()
                batch, _expired = self._waiting.take(self._now())
                if wanted := [job for job in batch if not job.future.done()]:
                    return wanted
                if not batch:
                    self._batch_ready.wait()
            return None

    def put_back(self, jobs: Sequence[Job]) -> None:
        """Their worker died: they are next, in their old order."""
        with self._lock:
            for job in reversed(jobs):
                if not job.future.done():
                    self._waiting.put_back(job)
            self._batch_ready.notify(len(jobs))

    def learn(self, tokens: int, seconds: float) -> None:
        """A batch of `tokens` took `seconds`."""
        with self._lock:
            self._admission.model.learn(tokens, seconds)

    def close(self) -> None:
        """Send every thread home."""
        with self._lock:
            self._closed = True
            self._text_came.notify_all()
            self._batch_ready.notify_all()

    @property
    def depth(self) -> int:
        """Jobs that are not being scored yet."""
        return len(self._unread) + len(self._waiting)

    @property
    def tokens(self) -> int:
        """Tokens on their way, those being scored included."""
        return self._admission.tokens

    @property
    def oldest_age_s(self) -> float:
        """How long the oldest job has waited."""
        with self._lock:
            unread = next(iter(self._unread.values()), None)
            ages = [self._now() - job.submitted_s for job in (unread, self._waiting.oldest) if job is not None]
        return max(ages, default=0.0)

    @property
    def wait_s(self) -> float:
        """Predicted for the next request."""
        with self._lock:
            return self._admission.wait_s

    def _pop_unread(self) -> list[Job]:
        return [self._unread.popitem(last=False)[1] for _ in range(min(len(self._unread), _READ_AT_ONCE))]

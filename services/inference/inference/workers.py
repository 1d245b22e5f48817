"""Owns the scoring threads: each makes, warms, uses and replaces its own engine; knows no loop and no HTTP."""

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from inference.bisection import EngineBroken, Outcomes, score_apart
from inference.desk import Desk
from inference.engine import Encoded, Engine, ModelChanged
from inference.jobs import Job

_WARM_UP_WORDS: Final = (2, 16, 64, 256, 1024)  # the last is cut at the model's limit
_BACKOFF_MAX_S: Final = 5.0
_NICENESS: Final = 5


Deliver: TypeAlias = Callable[[Outcomes, float, float], None]
"""Takes outcomes, the second they were begun and the seconds they took."""

Read: TypeAlias = Callable[[Engine, Sequence[Job]], None]
"""Has an engine count the tokens of jobs, and puts them among those that wait."""

GiveBack: TypeAlias = Callable[[Sequence[Job]], None]
"""Takes what was not answered when the worker died."""


What: TypeAlias = Literal["died", "cannot restart", "restarted", "gave up"]


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """What befell a worker, and the kind of error behind it."""

    worker: str
    what: What
    cause: str = ""


OnWorker: TypeAlias = Callable[[WorkerEvent], None]
"""Called in the worker's thread."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """How long a worker waits before it makes its engine anew, doubled after each failure, and when it gives up.

    One that is over a batch for `stuck_after_s` shows; after `lost_after_s` nobody can be waiting for that batch.
    """

    backoff_s: float = 0.1
    attempts: int = 8
    stuck_after_s: float = 60.0
    lost_after_s: float = 180.0


class Worker:
    """A thread that outlives its engines, unless no new one can be made: then it ends, and only a new process helps.

    `engine` is None until the first one is warm; one that was closed still reads texts, until the next one is warm.
    """

    def __init__(
        self,
        name: str,
        create: Callable[[], Engine],
        desk: Desk,
        read: Read,
        deliver: Deliver,
        give_back: GiveBack,
        on_event: OnWorker,
        restarts: Restarts,
        now: Callable[[], float],
    ) -> None:
        self._create = create
        self._desk = desk
        self._read = read
        self._deliver = deliver
        self._give_back = give_back
        self._on_event = on_event
        self._restarts = restarts
        self._now = now
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._busy_since_s: float | None = None
        self._free_since_s = 0.0
        self.started: Future[None] = Future()
        self.engine: Engine | None = None
        self._is_open = False
        self.is_ready = False

    def start(self) -> None:
        """Make and warm the engine in the worker's thread; `started` ends with its error or when it is warm."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after its batch; `join` waits for it."""
        self._stopping.set()

    def is_alive(self) -> bool:
        """Its thread runs."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def is_well(self) -> bool:
        """It has a warm engine and has not been over one batch for too long."""
        return self.is_ready and self._busy_s() < self._restarts.stuck_after_s

    def is_lost(self) -> bool:
        """It hangs for good. No thread can be ended but with its process."""
        return self._busy_s() > self._restarts.lost_after_s

    def _busy_s(self) -> float:
        since_s = self._busy_since_s
        return 0.0 if since_s is None else self._now() - since_s

    def _run(self) -> None:
        try:
            _give_way()
            probe = self._renew()
        except BaseException as error:
            self.started.set_exception(error)
            return
        self.started.set_result(None)
        try:
            self._serve(probe)
        finally:
            self._close()

    def _serve(self, probe: Encoded) -> None:
        while (jobs := self._desk.take_work()) is not None:
            assert self.engine is not None
            if jobs[0].encoded is None:
                self._read(self.engine, jobs)
            elif (renewed := self._score(self.engine, jobs, probe)) is not None:
                probe = renewed
            else:
                return

    def _score(self, engine: Engine, batch: Sequence[Job], probe: Encoded) -> Encoded | None:
        """Score one batch. Returns the probe of the engine that serves from now on; None when there will be none."""
        outcomes: Outcomes = {}
        started_s = self._busy_since_s = self._now()
        died: BaseException | None = None
        try:
            if score_apart(engine.score, probe, batch, outcomes):
                self._learn(batch)
        except BaseException as error:  # whatever it was, this thread must go on and its batch must be answered
            died = error
            self.is_ready = False
        self._busy_since_s = None
        if outcomes:
            self._deliver(outcomes, started_s, self._now() - started_s)
        if died is None:
            return probe
        self._tell("died", died)
        self._give_back([job for job in batch if job not in outcomes])
        return self._revive()

    def _learn(self, batch: Sequence[Job]) -> None:
        """What a batch costs is all that this thread did for it: reading and waiting for Python's lock as well."""
        now_s = self._now()
        self._desk.learn(sum(job.tokens for job in batch), now_s - max(self._free_since_s, batch[0].submitted_s))
        self._free_since_s = now_s

    def _revive(self) -> Encoded | None:
        self._close()  # a device may not have room for two
        backoff_s = self._restarts.backoff_s
        for _ in range(self._restarts.attempts):
            if self._stopping.wait(backoff_s):
                return None
            try:
                probe = self._renew()
            except BaseException as error:  # a panic of a library is no Exception, and must not end this thread unsaid
                self._tell("cannot restart", error)
                backoff_s = min(backoff_s * 2, _BACKOFF_MAX_S)
            else:
                self._tell("restarted")
                self._free_since_s = self._now()
                return probe
        self._tell("gave up")
        return None

    def _tell(self, what: What, error: BaseException | None = None) -> None:
        cause = str(error) if isinstance(error, EngineBroken) else type(error).__name__ if error else ""
        self._on_event(WorkerEvent(self._thread.name, what, cause))

    def _renew(self) -> Encoded:
        engine = self._create()
        try:
            if self.engine is not None and engine.card != self.engine.card:
                raise ModelChanged("the model was replaced: only a new process may serve another")
            probe = warm_up(engine, self._desk.learn)
        except BaseException:
            engine.close()
            raise
        self.engine = engine
        self._is_open = self.is_ready = True
        return probe

    def _close(self) -> None:
        self.is_ready = False
        if self._is_open and self.engine is not None:
            self._is_open = False
            with suppress(Exception):  # a device that is gone frees nothing
                self.engine.close()


def warm_up(engine: Engine, learn: Callable[[int, float], None]) -> Encoded:
    """Score texts of all lengths, so that the first requests find everything allocated; returns the shortest."""
    texts = engine.encode([" ".join(["good"] * words) for words in _WARM_UP_WORDS])
    for text in texts:
        engine.score([text])  # the first call of a length allocates; only the second is typical
        started_s = time.perf_counter()
        engine.score([text])
        learn(text.tokens, time.perf_counter() - started_s)
    return texts[0]


def _give_way() -> None:
    """Let the event loop's thread go first: what it has to do takes microseconds, this one computes for longer."""
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
        thread = threading.get_native_id()
        with suppress(OSError):  # where that is forbidden, it only answers later
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)

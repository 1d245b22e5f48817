"""Workers: each owns one engine, scores batches with it, and replaces it when it dies."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from common.runtime import tasks
from inference.batching.admission import estimate
from inference.batching.jobs import Job, Scored, ScoringFailed
from inference.batching.queue import RequestQueue
from inference.engines.base import EngineClient, EngineSpec, ModelCard, ModelError, Row

PROBE: Final = "good good"
_WARM_UP_WORDS: Final = (2, 16, 64, 256, 1024)  # the last is truncated at the model's limit
_BACKOFF_MAX_S: Final = 5.0
_RESTARTING: Final = -1  # in place of a batch's number
_ATTEMPTS: Final = 2  # engines that may die of one text before it has failed

Outcomes: TypeAlias = dict[Job, Row | ScoringFailed]


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """A change of a worker's state, and the class of the error behind it."""

    worker: str
    what: Literal["died", "cannot restart", "restarted", "failed"]
    cause: str = ""


OnEvent: TypeAlias = Callable[[WorkerEvent], None]
OnBatch: TypeAlias = Callable[[int], None]


class EngineBroken(Exception):
    """The engine fails on a text that it has scored before."""


class Worker:
    """`start` it, `close` it. It has one batch in flight for each of `backlogs`, once more jobs than that wait."""

    def __init__(
        self,
        name: str,
        spec: EngineSpec,
        queue: RequestQueue,
        learn: Callable[[int, float], None],
        now: Callable[[], float],
        *,
        backlogs: Sequence[int],
        on_batch: OnBatch,
        on_event: OnEvent,
    ) -> None:
        self._name = name
        self._create = spec.create
        self._queue = queue
        self._learn_cost = learn
        self._now = now
        self._supervision = spec.supervision
        self._backlogs = backlogs
        self._on_batch = on_batch
        self._on_event = on_event
        self._tasks: list[asyncio.Task[None]] = []
        self._engine: EngineClient | None = None
        self._has_engine = asyncio.Event()
        self._busy_since_s: dict[int, float] = {}
        self._free_since_s = 0.0
        self._card: ModelCard | None = None
        self._failures = 0
        self._cause = ""

    async def start(self) -> ModelCard:
        """Return when its engine is warm and it takes work. Raises what creating an engine raises."""
        engine = await self._start_engine()
        self._tasks = [asyncio.create_task(self._supervise(engine), name=f"{self._name} supervisor")]
        for number, backlog in enumerate(self._backlogs):
            self._tasks.append(asyncio.create_task(self._serve(number, backlog), name=f"{self._name}-{number}"))
        return engine.card

    async def close(self) -> None:
        """Stop; the batches in flight get no outcome."""
        for task in self._tasks:
            await tasks.cancel_and_wait(task)
        engine, self._engine = self._engine, None
        if engine is not None:
            await _close(engine)

    @property
    def is_ready(self) -> bool:
        """It has a warm engine and is not stuck."""
        return self._engine is not None and self._busy_s() < self._supervision.stuck_after_s

    @property
    def is_lost(self) -> bool:
        """It has hung for good or failed. A thread that hangs ends only with its process."""
        return self._busy_s() > self._supervision.lost_after_s or any(task.done() for task in self._tasks)

    def _busy_s(self) -> float:
        return self._now() - min(self._busy_since_s.values()) if self._busy_since_s else 0.0

    # ---- scoring

    async def _serve(self, number: int, backlog: int) -> None:
        while True:
            await self._has_engine.wait()
            batch = await self._queue.take(backlog)
            engine = self._engine
            if engine is None or engine.exited.is_set():  # it died while this waited for work
                self._queue.put_back(batch)
                await asyncio.sleep(0)
                continue
            self._busy_since_s[number] = self._now()
            try:
                await self._score(engine, batch)
            finally:
                del self._busy_since_s[number]

    async def _score(self, engine: EngineClient, batch: Sequence[Job]) -> None:
        outcomes: Outcomes = {}
        started_s, broken = self._now(), None
        try:
            if await score_batch(engine, batch, outcomes):
                self._learn(batch)
            self._failures = 0  # only a scored batch shows that a new engine works
        except EngineBroken as error:
            broken = error
        if outcomes:
            self._deliver(outcomes, started_s)
        if broken is not None:
            self._give_up(engine, str(broken), [job for job in batch if job not in outcomes])

    def _learn(self, batch: Sequence[Job]) -> None:
        """A batch costs all of the time since the previous one, unless it arrived later."""
        now_s = self._now()
        tokens = sum(job.tokens for job in batch)
        self._learn_cost(tokens, now_s - max(self._free_since_s, batch[0].submitted_s))
        self._free_since_s = now_s

    def _deliver(self, outcomes: Outcomes, started_s: float) -> None:
        seconds = self._now() - started_s
        for job, row in outcomes.items():
            if not job.future.done():
                job.future.set_result(_outcome(job, row, started_s, seconds))
        self._on_batch(len(outcomes))

    def _give_up(self, engine: EngineClient, cause: str, unscored: Sequence[Job]) -> None:
        """Have a broken engine replaced. Its unscored jobs go back, each alone next time.

        Batches fail in the order in which the engine took them, so only the first can be at fault.
        """
        if self._engine is engine:
            self._engine, self._cause = None, cause
            self._has_engine.clear()
            engine.exited.set()
            for job in unscored:
                job.attempts += 1
                if job.attempts >= _ATTEMPTS and not job.future.done():
                    job.future.set_result(ScoringFailed("its worker died twice"))
        self._queue.put_back(unscored)

    # ---- supervision

    async def _supervise(self, engine: EngineClient) -> None:
        """Replace each engine that exits or breaks, until that fails too often."""
        replacement: EngineClient | None = engine
        while replacement is not None:
            await replacement.exited.wait()
            self._engine, cause = None, self._cause or "EngineExited"
            self._has_engine.clear()
            self._emit("died", cause)
            await _close(replacement)  # a device may not have memory for two
            replacement = await self._replace()
        self._emit("failed")

    async def _replace(self) -> EngineClient | None:
        while self._failures < self._supervision.attempts:
            await asyncio.sleep(min(self._supervision.backoff_s * 2**self._failures, _BACKOFF_MAX_S))
            self._failures += 1
            self._busy_since_s[_RESTARTING] = self._now()  # a device can hang here too
            try:
                engine = await self._start_engine()
            except Exception as error:
                self._emit("cannot restart", type(error).__name__)
            else:
                self._free_since_s = self._now()
                self._emit("restarted")
                return engine
            finally:
                del self._busy_since_s[_RESTARTING]
        return None

    async def _start_engine(self) -> EngineClient:
        engine = await self._create()
        try:
            if self._card not in (None, engine.card):
                raise ModelError("the model was replaced: only a new process may serve another")
            await warm_up(engine, self._learn_cost)
        except BaseException:
            await _close(engine)
            raise
        self._engine, self._card, self._cause = engine, engine.card, ""
        self._has_engine.set()
        return engine

    def _emit(self, what: Literal["died", "cannot restart", "restarted", "failed"], cause: str = "") -> None:
        self._on_event(WorkerEvent(self._name, what, cause))


async def score_batch(engine: EngineClient, batch: Sequence[Job], outcomes: Outcomes) -> bool:
    """Add one outcome per job to `outcomes`. After an error each text is scored alone, once, and this returns False.

    Raises EngineBroken if the engine fails on the probe too: then the jobs without an outcome are not to blame.
    """
    try:
        rows = _checked(await engine.score([job.text for job in batch]), len(batch))
    except Exception as error:
        await _probe(engine)
        if len(batch) == 1:
            outcomes[batch[0]] = ScoringFailed(type(error).__name__)
        else:
            for job in batch:
                await score_batch(engine, [job], outcomes)
        return False
    outcomes.update(zip(batch, rows, strict=True))
    return True


async def warm_up(engine: EngineClient, learn: Callable[[int, float], None]) -> None:
    """Score texts of all lengths, so that the first requests find everything allocated."""
    for words in _WARM_UP_WORDS:
        text = " ".join(["good"] * words)
        await engine.score([text])  # the first call of a length allocates; the second is typical
        started_s = time.perf_counter()
        await engine.score([text])
        learn(estimate(text, engine.card.max_tokens), time.perf_counter() - started_s)


async def _probe(engine: EngineClient) -> None:
    try:
        _checked(await engine.score([PROBE]), 1)
    except Exception as error:
        raise EngineBroken(type(error).__name__) from error


def _checked(rows: list[Row], expected: int) -> list[Row]:
    if len(rows) != expected:
        raise ValueError("the engine answered a different number of texts than it was given")
    if not all(math.isfinite(value) for row in rows for value in row.scores):
        raise ValueError("the engine answered a score that is not a number")
    return rows


def _outcome(job: Job, row: Row | ScoringFailed, started_s: float, seconds: float) -> Scored | ScoringFailed:
    if isinstance(row, ScoringFailed):
        return row
    return Scored(row.scores, row.tokens, row.truncated, started_s - job.submitted_s, seconds)


async def _close(engine: EngineClient) -> None:
    with suppress(Exception):  # a device that is gone frees nothing
        await engine.close()

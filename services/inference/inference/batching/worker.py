"""Owns the workers: each makes, warms, uses and replaces an engine of its own; knows no HTTP and no queue."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from common.runtime import tasks
from inference.batching.admission import estimate
from inference.batching.isolation import EngineBroken, Outcomes, score_with_isolation
from inference.batching.jobs import Job
from inference.engines.base import EngineClient, ModelCard, ModelChanged

PROBE: Final = "good good"
_WARM_UP_WORDS: Final = (2, 16, 64, 256, 1024)  # the last is cut at the model's limit
_BACKOFF_MAX_S: Final = 5.0
_RENEWAL: Final = -1  # the number of no lane

What: TypeAlias = Literal["died", "cannot restart", "restarted", "gave up"]


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """What befell a worker, and the kind of error behind it."""

    worker: str
    what: What
    cause: str = ""


OnWorker: TypeAlias = Callable[[WorkerEvent], None]


@dataclass(frozen=True, slots=True)
class Restarts:
    """How long a worker waits before it makes its engine anew, doubled after each failure, and when it gives up.

    An engine that ends before its first batch is done, and before it ran for `min_uptime_s`, is a failure too. A
    worker that is busy with one batch for `stuck_after_s` shows; after `lost_after_s` nobody can be waiting for it.
    """

    backoff_s: float = 0.1
    attempts: int = 8
    min_uptime_s: float = 60.0
    stuck_after_s: float = 60.0
    lost_after_s: float = 180.0


class JobSource(Protocol):
    """Where a worker's batches come from, and where it brings what became of them."""

    async def take(self, *, ahead: bool) -> list[Job]:
        """The next batch, once there is one; `ahead` of its turn only once many jobs wait."""
        ...

    def deliver(self, outcomes: Outcomes, started_s: float, seconds: float) -> None:
        """Outcomes, the second they were begun and the seconds they took."""
        ...

    def put_back(self, jobs: Sequence[Job]) -> None:
        """They were taken and not begun."""
        ...

    def give_back(self, jobs: Sequence[Job]) -> None:
        """They were not answered when the engine died."""
        ...

    def learn(self, tokens: int, seconds: float) -> None:
        """A batch of about `tokens` took `seconds`."""
        ...

    def was_read(self, seconds: float) -> None:
        """Reading a batch took `seconds`."""
        ...


class Worker:
    """Outlives its engines, unless no new one can be made: then only a new process helps.

    Each of its `lanes` is over one batch. While many jobs wait, those beyond the first keep the engine from standing
    still between two batches. What broke an engine before is scored while all other lanes rest.
    """

    def __init__(
        self,
        name: str,
        create: Callable[[], Awaitable[EngineClient]],
        work: JobSource,
        on_event: OnWorker,
        restarts: Restarts,
        now: Callable[[], float],
        lanes: int,
    ) -> None:
        self._name = name
        self._create = create
        self._work = work
        self._on_event = on_event
        self._restarts = restarts
        self._now = now
        self._lanes = [asyncio.Lock() for _ in range(lanes)]
        self._serving: list[asyncio.Task[None]] = []
        self._host: EngineClient | None = None
        self._restart_lock = asyncio.Lock()
        self._begun_s: dict[int, float] = {}
        self._free_since_s = 0.0
        self._card: ModelCard | None = None
        self._tries = 0
        self._since_s = 0.0
        self._has_given_up = False
        self.is_ready = False

    async def start(self) -> ModelCard:
        """Return when its engine is warm and it takes work. Raises what making an engine raises."""
        card = await self._renew()
        self._serving = [asyncio.create_task(self._watch_exit(), name=f"{self._name}-guard")]
        for lane in range(len(self._lanes)):
            self._serving.append(asyncio.create_task(self._serve(lane), name=f"{self._name}-{lane}"))
        return card

    async def close(self) -> None:
        """End it; what it was over is not answered."""
        for task in self._serving:
            await tasks.cancel_and_wait(task)
        self.is_ready = False
        await _close(self._host)

    def is_well(self) -> bool:
        """It has a warm engine and has not been over one batch for too long."""
        return self.is_ready and self._busy_s() < self._restarts.stuck_after_s

    def is_lost(self) -> bool:
        """It hangs for good, and no thread can be ended but with its process; or it takes no work any more."""
        has_ended = any(task.done() for task in self._serving) and not self._has_given_up
        return has_ended or self._busy_s() > self._restarts.lost_after_s

    def _busy_s(self) -> float:
        return max((self._now() - since_s for since_s in self._begun_s.values()), default=0.0)

    async def _serve(self, lane: int) -> None:
        while await self._has_engine():
            batch = await self._work.take(ahead=lane > 0)
            async with AsyncExitStack() as turn:
                for lock in self._lanes if batch[0].attempts else self._lanes[lane : lane + 1]:
                    await turn.enter_async_context(lock)
                host, broken = self._host, None
                if host is None or not self.is_ready or host.lost.is_set():  # it broke or ended meanwhile
                    self._work.put_back(batch)
                    await asyncio.sleep(0)
                    continue
                self._begun_s[lane] = self._now()
                try:
                    broken = await self._score(host, batch)
                finally:
                    del self._begun_s[lane]
            if broken is not None:
                await self._revive(host, str(broken))

    async def _watch_exit(self) -> None:
        """An engine that ends while nobody asks it anything is replaced before somebody does."""
        while await self._has_engine():
            host = self._host
            assert host is not None
            await host.lost.wait()
            self.is_ready = self.is_ready and host is not self._host
            await self._revive(host, "EngineEnded")

    async def _has_engine(self) -> bool:
        """False when there will be no engine any more. Waits while another lane makes one."""
        async with self._restart_lock:
            return self._host is not None

    async def _score(self, host: EngineClient, batch: Sequence[Job]) -> EngineBroken | None:
        """Returns why the engine is of no more use, if it is."""
        outcomes: Outcomes = {}
        started_s, broken = self._now(), None
        try:
            tokenize_s = await score_with_isolation(host.score, PROBE, batch, outcomes)
        except EngineBroken as error:
            broken = error
            self.is_ready = self.is_ready and host is not self._host  # perhaps there is a new one already
        else:
            self._tries = 0  # only a batch that was scored shows that a new engine works
            if tokenize_s is not None:
                self._work.was_read(tokenize_s)
                self._learn(batch)
        if outcomes:
            self._work.deliver(outcomes, started_s, self._now() - started_s)
        if broken is not None:
            self._work.give_back([job for job in batch if job not in outcomes])
        return broken

    def _learn(self, batch: Sequence[Job]) -> None:
        """What a batch costs is all of the time since the one before, unless it came later than that."""
        now_s = self._now()
        self._work.learn(sum(job.tokens for job in batch), now_s - max(self._free_since_s, batch[0].submitted_s))
        self._free_since_s = now_s

    async def _revive(self, broken: EngineClient, cause: str) -> None:
        async with self._restart_lock:
            if self._host is not broken:  # another task has done it
                return
            self._host = None
            if self._now() - self._since_s > self._restarts.min_uptime_s:
                self._tries = 0
            self._emit("died", cause)
            await _close(broken)  # a device may not have room for two
            broken.lost.set()  # who watches it goes on to the next
            while self._tries < self._restarts.attempts:
                await asyncio.sleep(min(self._restarts.backoff_s * 2**self._tries, _BACKOFF_MAX_S))
                self._tries += 1  # a new engine is a success only once it is over a batch
                self._begun_s[_RENEWAL] = self._now()  # a device can hang over this too
                try:
                    await self._renew()
                except Exception as error:
                    self._emit("cannot restart", type(error).__name__)
                else:
                    self._emit("restarted")
                    self._free_since_s = self._now()
                    return
                finally:
                    del self._begun_s[_RENEWAL]
            self._has_given_up = True
            self._emit("gave up")

    def _emit(self, what: What, cause: str = "") -> None:
        self._on_event(WorkerEvent(self._name, what, cause))

    async def _renew(self) -> ModelCard:
        host = await self._create()
        try:
            if self._card not in (None, host.card):
                raise ModelChanged("the model was replaced: only a new process may serve another")
            await warm_up(host, self._work.learn)
        except BaseException:
            await _close(host)
            raise
        self._host, self._card = host, host.card
        self._since_s = self._now()
        self.is_ready = True
        return host.card


async def warm_up(host: EngineClient, learn: Callable[[int, float], None]) -> None:
    """Score texts of all lengths, so that the first requests find everything allocated."""
    for words in _WARM_UP_WORDS:
        text = " ".join(["good"] * words)
        await host.score([text])  # the first call of a length allocates; only the second is typical
        started_s = time.perf_counter()
        await host.score([text])
        learn(estimate(text, host.card.max_tokens), time.perf_counter() - started_s)


async def _close(host: EngineClient | None) -> None:
    with suppress(Exception):  # a device that is gone frees nothing
        if host is not None:
            await host.close()

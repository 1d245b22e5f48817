"""When a worker replaces its engine, and when it has failed."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from inference.batching.batcher import Batcher
from inference.batching.jobs import Job, Scored, ScoringFailed
from inference.batching.worker import WorkerEvent, score_batch
from inference.engines.base import EngineClient, Row
from inference.engines.thread import ThreadClient

DIES_ONCE = 2  # calls of `score` that raise: the text's and the probe's


class MortalClient(ThreadClient):
    """Its engine can exit as a process does."""

    async def score(self, texts: Sequence[str]) -> list[Row]:
        if self.exited.is_set():
            raise RuntimeError("gone")
        return await super().score(texts)


class Worker:
    """A batcher with one worker, and what happened to it."""

    def __init__(self, stage: Any, start_batcher: Any) -> None:
        self._stage, self._start_batcher = stage, start_batcher
        self._events: asyncio.Queue[WorkerEvent] = asyncio.Queue()
        self.clients: list[MortalClient] = []
        self.on_event: Callable[[WorkerEvent], None] = lambda _event: None
        self.batcher: Batcher

    async def start(self, create: Any = None, **options: Any) -> None:
        options = {"attempts": 2, "pipeline_depth": 2} | options
        self.batcher = await self._start_batcher(create=create or self._create, on_event=self._emit, **options)

    async def _create(self) -> EngineClient:
        self.clients.append(await MortalClient.start(self._stage.make))
        return self.clients[-1]

    def _emit(self, event: WorkerEvent) -> None:
        self._events.put_nowait(event)
        self.on_event(event)

    async def events(self, *, until: str) -> list[str]:
        """The events up to the next one called `until`."""
        seen: list[str] = []
        async with asyncio.timeout(60):
            while until not in seen:
                seen.append((await self._events.get()).what)
        return seen

    def submit(self, *texts: str) -> list[Job]:
        return self.batcher.submit(texts, time.monotonic() + 60.0)

    async def score(self) -> Job:
        [job] = self.submit("good")
        async with asyncio.timeout(60):
            assert isinstance(await job.future, Scored)
        return job


@pytest.fixture
def worker(stage: Any, start_batcher: Any) -> Worker:
    return Worker(stage, start_batcher)


async def test_engine_that_breaks__is_replaced_and_its_batch_scored_again(worker: Worker, stage: Any) -> None:
    await worker.start(attempts=8)
    stage.break_scores, stage.break_makes = DIES_ONCE, 2
    assert (await worker.score()).attempts == 1
    assert await worker.events(until="restarted") == ["died", "cannot restart", "cannot restart", "restarted"]
    assert (worker.batcher.state, stage.made, stage.closed) == ("ok", 4, 1)


async def test_engine_that_exits_while_idle__is_replaced(worker: Worker) -> None:
    states: list[str] = []
    worker.on_event = lambda _event: states.append(worker.batcher.state)
    await worker.start()
    worker.clients[-1].exited.set()
    assert await worker.events(until="restarted") == ["died", "restarted"]
    assert states == ["failed", "ok"]
    await worker.score()


async def test_text_that_arrives_as_the_engine_exits__keeps_its_attempts(worker: Worker) -> None:
    await worker.start()
    scoring = asyncio.create_task(worker.score())
    await asyncio.sleep(0)  # it is submitted, and no batch has been taken yet
    worker.clients[-1].exited.set()
    assert (await scoring).attempts == 0


def without_a_device(stage: Any) -> None:
    stage.break_makes = 1 << 30


def with_a_library_that_panics(stage: Any) -> None:
    def panic() -> Any:
        raise SystemExit

    stage.make = panic


def with_another_revision(stage: Any) -> None:
    stage.card = replace(stage.card, revision="r2")


@pytest.mark.parametrize("spoil", [without_a_device, with_a_library_that_panics, with_another_revision])
async def test_engine_that_cannot_be_replaced__fails_the_worker(
    worker: Worker, stage: Any, spoil: Callable[[Any], None]
) -> None:
    await worker.start()
    spoil(stage)
    stage.break_scores = DIES_ONCE
    [job] = worker.submit("good")
    assert await worker.events(until="failed") == ["died", "cannot restart", "cannot restart", "failed"]
    assert (worker.batcher.state, worker.batcher.ready_workers, job.future.done()) == ("failed", 0, False)
    assert stage.open == 0


@pytest.mark.parametrize("dies", ["idle", "on every batch"])
async def test_engine_that_dies_before_it_has_scored__fails_the_worker(worker: Worker, dies: str) -> None:
    if dies == "idle":
        worker.on_event = lambda event: worker.clients[-1].exited.set() if event.what == "restarted" else None
    await worker.start()
    jobs = worker.submit("killer", "killer", "killer") if dies != "idle" else []
    if dies == "idle":
        worker.clients[-1].exited.set()
    assert await worker.events(until="failed") == ["died", "restarted", "died", "restarted", "died", "failed"]
    assert not any(job.future.done() for job in jobs[-1:])


async def test_engine_that_has_scored_a_batch__can_be_replaced_again(worker: Worker) -> None:
    await worker.start()
    for _ in range(5):
        worker.clients[-1].exited.set()
        assert await worker.events(until="restarted") == ["died", "restarted"]
        await worker.score()


async def test_pause_before_a_restart__doubles(worker: Worker, stage: Any) -> None:
    started_s: list[float] = []

    async def create() -> EngineClient:
        started_s.append(time.monotonic())
        if len(started_s) > 1:
            raise RuntimeError
        return await stage.client()  # type: ignore[no-any-return]

    await worker.start(create=create, attempts=9)
    stage.break_scores = DIES_ONCE
    worker.submit("good")
    await worker.events(until="failed")
    pauses_s = [later - earlier for earlier, later in pairwise(started_s[1:])]
    assert all(pause >= 0.99 * 0.0002 * 2**number for number, pause in enumerate(pauses_s))
    assert len(pauses_s) == 8


async def test_restart__is_not_counted_as_the_cost_of_a_batch(worker: Worker, stage: Any) -> None:
    clock = [100.0]

    def take_long(event: WorkerEvent) -> None:
        clock[0] += 1000.0 if event.what == "died" else 0.0

    worker.on_event = take_long
    await worker.start(now=lambda: clock[0])
    stage.break_scores = DIES_ONCE
    [job] = worker.batcher.submit(["good"], 10_000.0)
    async with asyncio.timeout(60):
        await job.future
    assert worker.batcher.admission.seconds_per_token < 0.1


async def test_hanging_batch__makes_the_worker_unready_then_lost(worker: Worker, stage: Any) -> None:
    clock = [100.0]
    await worker.start(now=lambda: clock[0])
    stage.hold()
    worker.batcher.submit(["good"], 1000.0)
    await stage.entered()
    found = []
    for now_s in (109.0, 111.0, 281.0):
        clock[0] = now_s
        found.append((worker.batcher.state, worker.batcher.ready_workers, worker.batcher.is_lost))
    assert found == [("ok", 1, False), ("failed", 0, False), ("failed", 0, True)]


async def test_hanging_restart__is_lost(worker: Worker, stage: Any) -> None:
    clock = [100.0]
    worker.on_event = lambda event: stage.hold() if event.what == "died" else None
    await worker.start(now=lambda: clock[0])
    stage.break_scores = DIES_ONCE
    worker.batcher.submit(["good"], 1000.0)
    await stage.entered(3)
    assert not worker.batcher.is_lost
    clock[0] += 181.0
    assert worker.batcher.is_lost


@pytest.mark.parametrize("scores", [[], [(1.0,), (1.0,)], [(float("nan"),)], [(float("inf"),)]])
async def test_answer_that_is_not_one_row_of_numbers__fails_the_text(stage: Any, scores: Any) -> None:
    class WrongClient(ThreadClient):
        async def score(self, texts: Sequence[str]) -> list[Row]:
            return [Row(row, 1) for row in (scores if texts == ["text"] else [(0.5,)])]

    job = Job(0, "text", 1, 0.0, 1.0, asyncio.get_running_loop().create_future())
    outcomes: Any = {}
    client = await WrongClient.start(stage.make)
    await score_batch(client, [job], outcomes)
    await client.close()
    assert isinstance(outcomes[job], ScoringFailed)

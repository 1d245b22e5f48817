"""Tests of the batcher on the scripted engine: every text one outcome, whatever dies, leaves or can't be scored."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from inference.batching.admission import Limits
from inference.batching.batcher import Batcher, BatchingConfig, BatchReport
from inference.batching.jobs import Job, Overloaded, Scored, ScoringFailed
from inference.batching.worker import Restarts, WorkerEvent
from inference.engines.base import ModelMissing

Start = Callable[..., Any]
QUICK = Restarts(backoff_s=0.0001)


@pytest.fixture
async def start(stage: Any) -> AsyncIterator[Start]:
    """Call it for a batcher that runs on the scripted engine."""
    async with AsyncExitStack() as closing:

        async def started(
            workers: int = 1, max_batch_tokens: int = 64, max_wait_s: float = 60.0, **changed: Any
        ) -> Batcher:
            sizes = BatchingConfig(workers, max_batch_tokens, Limits(1 << 20, max_wait_s), changed.pop("lanes", 1))
            changed.setdefault("now", time.monotonic)
            batcher = Batcher(stage.host, sizes, restarts=QUICK, **changed)
            closing.push_async_callback(batcher.close)
            closing.callback(stage.release)
            await batcher.start()
            stage.is_warm = True
            return batcher

        yield started


def submit(batcher: Batcher, *texts: str, within_s: float = 30.0) -> list[Job]:
    return batcher.submit(texts, time.monotonic() + within_s)


async def outcomes(jobs: list[Job]) -> list[Any]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*(job.future for job in jobs))


async def test_text__is_scored_and_measured(start: Start) -> None:
    batcher = await start()
    [scored] = await outcomes(submit(batcher, "good film"))
    assert (scored.scores, scored.tokens, scored.truncated) == (pytest.approx((1 / 3, 2 / 3)), 3, False)
    assert min(scored.queue_s, scored.compute_s) >= 0


async def test_texts_that_wait__are_batched_within_the_budget_oldest_first(start: Start, stage: Any) -> None:
    reports: list[BatchReport] = []
    batcher = await start(max_batch_tokens=12, on_batch=reports.append)
    stage.hold()
    first = submit(batcher, "a bc")  # three tokens by estimate and by count
    await stage.entered()
    rest = submit(batcher, *["a bc"] * 4, " ".join(["abc"] * 14))
    stage.release()
    await outcomes(first + rest)
    assert [len(batch) for batch in stage.batches] == [1, 4, 1]
    assert [(r.size, r.tokens, r.padded_tokens) for r in reports] == [(1, 3, 3), (4, 12, 12), (1, 15, 15)]


async def test_poison_text__fails_alone(start: Start) -> None:
    batcher = await start(max_batch_tokens=640)
    results = await outcomes(submit(batcher, "good", "poison", "bad", "good"))
    assert [type(result) for result in results] == [Scored, ScoringFailed, Scored, Scored]
    assert batcher.state == "ok"


@pytest.mark.parametrize("text", ["unreadable", "panics"])
async def test_text_that_cannot_be_read__fails_alone(start: Start, text: str) -> None:
    batcher = await start()
    results = await outcomes(submit(batcher, "good", text, "bad"))
    assert [type(result) for result in results] == [Scored, ScoringFailed, Scored]
    assert batcher.state == "ok"


async def test_text_whose_client_left__is_not_scored(start: Start, stage: Any) -> None:
    batcher = await start()
    stage.hold()
    first = submit(batcher, "first one")
    await stage.entered()
    left, stays = submit(batcher, "left it", "stays here now")
    left.future.cancel()
    stage.release()
    await outcomes([*first, stays])
    assert ([len(text) for batch in stage.batches for text in batch], batcher.desk.tokens) == ([3, 4], 0)


async def test_client_that_leaves_while_its_text_is_scored__costs_no_worker(start: Start, stage: Any) -> None:
    batcher = await start()
    stage.hold()
    [left, stays] = submit(batcher, "left it", "stays")
    await stage.entered()
    left.future.cancel()
    stage.release()
    assert isinstance((await outcomes([stays]))[0], Scored)
    assert isinstance((await outcomes(submit(batcher, "good")))[0], Scored)
    assert not batcher.is_lost


async def test_text_past_its_deadline__is_not_scored(start: Start, stage: Any) -> None:
    clock = [100.0]
    batcher = await start(now=lambda: clock[0])
    stage.hold()
    first = batcher.submit(["first one"], 200.0)
    await stage.entered()
    late, fine = batcher.submit(["too late"], 110.0) + batcher.submit(["just in time"], 111.0)
    clock[0] = 110.0
    stage.release()
    await outcomes([*first, fine])
    assert not late.future.done()
    assert [len(text) for batch in stage.batches for text in batch] == [3, 4]


async def test_worker_that_dies__is_replaced_and_its_batch_scored_once_more(start: Start, stage: Any) -> None:
    events: list[WorkerEvent] = []
    batcher = await start(on_worker=events.append)
    stage.hold()
    jobs = submit(batcher, "good")
    await stage.entered()
    stage.break_scores = 2  # the text and the probe
    stage.break_makes = 2
    stage.release()
    assert isinstance((await outcomes(jobs))[0], Scored)
    assert (batcher.state, batcher.ready_workers) == ("ok", 1)
    assert (stage.made, stage.closed) == (4, 1)
    assert [event.what for event in events] == ["died", "cannot restart", "cannot restart", "restarted"]


async def test_engine_that_died__is_closed_before_another_is_made(start: Start, stage: Any) -> None:
    batcher = await start()
    stage.break_scores = 2
    await outcomes(submit(batcher, "good"))
    assert stage.closed_when_made == [0, 1]


async def test_worker_that_no_restart_mends__gives_up_and_says_so(start: Start, stage: Any) -> None:
    events: list[WorkerEvent] = []
    gone = asyncio.Event()

    def tell(event: WorkerEvent) -> None:
        events.append(event)
        if event.what == "gave up":
            gone.set()

    batcher = await start(on_worker=tell)
    stage.break_makes = 1 << 30
    stage.break_scores = 2
    submit(batcher, "good")
    async with asyncio.timeout(10):
        await gone.wait()
    assert [event.what for event in events] == ["died", *["cannot restart"] * QUICK.attempts, "gave up"]
    assert batcher.state == "failed"


async def test_batch_that_was_bisected__teaches_nothing(start: Start) -> None:
    batcher = await start(max_batch_tokens=640)
    batcher.desk.admit([1000], 60.0, 1)  # so that there is a wait to predict
    before_s = batcher.desk.wait_s
    await outcomes(submit(batcher, "good", "poison", "bad", "good"))
    assert batcher.desk.wait_s == before_s
    await outcomes(submit(batcher, "good"))
    assert batcher.desk.wait_s != before_s


async def test_worker_that_cannot_be_replaced__shows(start: Start, stage: Any) -> None:
    batcher = await start()
    stage.break_makes = 1 << 30
    stage.break_scores = 2
    jobs = submit(batcher, "good")
    await stage.entered(2)
    while batcher.state == "ok":  # until the worker has noticed
        await asyncio.sleep(0)
    assert (batcher.state, batcher.ready_workers) == ("failed", 0)
    assert not jobs[0].future.done()


async def test_text_that_kills_every_worker__fails_alone_after_two(start: Start, stage: Any) -> None:
    batcher = await start(max_batch_tokens=640)
    results = await outcomes(submit(batcher, "good", "killer", "bad"))
    assert [type(result) for result in results] == [Scored, ScoringFailed, Scored]
    assert stage.made == 3


async def test_hanging_worker__shows(start: Start, stage: Any) -> None:
    clock = [100.0]
    batcher = await start(now=lambda: clock[0])
    stage.hold()
    batcher.submit(["good"], 1000.0)
    await stage.entered()
    clock[0] += 59.0
    assert batcher.state == "ok"
    clock[0] += 2.0
    assert batcher.state == "failed"


async def test_new_engine_that_hangs_while_it_is_made__is_lost_in_the_end(start: Start, stage: Any) -> None:
    clock = [100.0]

    def hang(event: WorkerEvent) -> None:
        if event.what == "died":
            stage.hold()

    batcher = await start(now=lambda: clock[0], on_worker=hang)
    stage.break_scores = 2  # the text and the probe
    batcher.submit(["good"], 1000.0)
    await stage.entered(3)
    assert not batcher.is_lost
    clock[0] += 181.0
    assert batcher.is_lost


async def test_time_between_batches__counts_as_what_a_batch_costs(start: Start) -> None:
    """Reading is a part of it, here a whole second."""
    clock = [100.0]

    def take_a_second(_seconds: float) -> None:
        clock[0] += 1.0

    batcher = await start(now=lambda: clock[0], on_read=take_a_second)
    await outcomes(batcher.submit(["good film"], 1000.0))
    batcher.desk.admit([1000], 1000.0, 1)  # so that there is a wait to predict
    assert batcher.desk.wait_s > 1.0


async def test_no_room__is_refused_at_once_and_room_comes_back(start: Start, stage: Any) -> None:
    batcher = await start(max_wait_s=1e-9)
    stage.hold()
    first = submit(batcher, "good")
    await stage.entered()
    with pytest.raises(Overloaded):
        submit(batcher, "good")
    stage.release()
    await outcomes(first)
    await outcomes(submit(batcher, "good"))


async def test_close__cancels_what_waits(start: Start, stage: Any) -> None:
    batcher = await start(max_batch_tokens=2)
    stage.hold()
    jobs = submit(batcher, "first") + submit(batcher, "second")
    await stage.entered()
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    stage.release()
    await closing
    assert jobs[1].future.cancelled()
    assert stage.closed == stage.made == 1


async def test_model_that_cannot_be_loaded__fails_the_start_and_leaves_no_engine(stage: Any) -> None:
    folders = iter([stage.host])

    async def missing() -> Any:
        for make in folders:
            return await make()
        raise ModelMissing("no such folder")

    batcher = Batcher(missing, BatchingConfig(2, 64, Limits(1000, 1.0)), time.monotonic)
    with pytest.raises(ModelMissing):
        await batcher.start()
    assert stage.closed == stage.made == 1


HARMFUL = ("poison", "killer", "unreadable", "panics")
TEXTS = st.sampled_from([*HARMFUL, "good", "bad bad", "a b c d e f g h", "good bad " * 40])


@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(TEXTS, min_size=1, max_size=12), min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(1, 2),
    st.data(),
)
async def test_every_text__is_scored_once_and_has_an_outcome_of_its_own(
    stage: Any, requests: list[list[str]], workers: int, lanes: int, data: st.DataObject
) -> None:
    """Whatever is batched with what, fails beside it, or leaves meanwhile."""
    count = sum(map(len, requests))
    leaves = data.draw(st.sets(st.integers(0, count - 1), max_size=5))  # before anything runs: a draw may end the test
    stage.is_warm = False
    stage.scored.clear()
    reports: list[BatchReport] = []
    sizes = BatchingConfig(workers, 40, Limits(1 << 20, 60.0), lanes)
    batcher = Batcher(stage.host, sizes, time.monotonic, restarts=QUICK, on_batch=reports.append)
    await batcher.start()
    stage.is_warm = True
    jobs = [job for texts in requests for job in submit(batcher, *texts)]
    leaving = {jobs[number] for number in leaves}
    for job in leaving:
        job.future.cancel()
    stay = [job for job in jobs if job not in leaving]
    for job, outcome in zip(stay, await outcomes(stay), strict=True):
        if job.text in HARMFUL:
            assert isinstance(outcome, ScoringFailed)
        else:
            assert outcome.scores == stage.scores(stage.encode(job.text))
    await batcher.close()
    assert (batcher.desk.tokens, batcher.desk.depth) == (0, 0)
    wanted, left = (Counter(job.text for job in some if job.text not in HARMFUL) for some in (stay, leaving))
    for text in wanted | left:
        assert wanted[text] <= stage.scored[stage.encode(text).ids] <= wanted[text] + left[text]
    delivered = sum(report.size for report in reports)
    failed = sum(job.text in HARMFUL for job in jobs)  # delivered too, unless two engines died of it
    assert sum(wanted.values()) <= delivered <= sum((wanted + left).values()) + failed

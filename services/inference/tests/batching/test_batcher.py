"""Every text gets one outcome, whatever dies, leaves or cannot be scored."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from inference.batching.batcher import Batcher
from inference.batching.jobs import Job, Scored, ScoringFailed
from inference.engines.base import ModelError


def submit(batcher: Batcher, *texts: str, within_s: float = 30.0) -> list[Job]:
    return batcher.submit(texts, time.monotonic() + within_s)


async def outcomes(jobs: list[Job]) -> list[Any]:
    async with asyncio.timeout(60):
        return await asyncio.gather(*(job.future for job in jobs))


async def test_text__is_scored_and_measured(start_batcher: Any) -> None:
    [scored] = await outcomes(submit(await start_batcher(), "good film"))
    assert (scored.scores, scored.tokens, scored.truncated) == (pytest.approx((1 / 3, 2 / 3)), 3, False)
    assert min(scored.queue_s, scored.compute_s) >= 0


async def test_waiting_texts__are_batched_within_the_budget_oldest_first(start_batcher: Any, stage: Any) -> None:
    sizes: list[int] = []
    batcher = await start_batcher(max_batch_tokens=12, on_batch=sizes.append)
    stage.hold()
    first = submit(batcher, "a bc")  # three tokens by estimate and by count
    await stage.entered()
    rest = submit(batcher, *["a bc"] * 4, " ".join(["abc"] * 14))
    stage.release()
    await outcomes(first + rest)
    assert [len(batch) for batch in stage.batches] == sizes == [1, 4, 1]


async def test_text_past_its_deadline__is_not_scored(start_batcher: Any, stage: Any) -> None:
    clock = [100.0]
    batcher = await start_batcher(now=lambda: clock[0])
    stage.hold()
    first = batcher.submit(["first one"], 200.0)
    await stage.entered()
    late, fine = batcher.submit(["too late"], 110.0) + batcher.submit(["just in time"], 111.0)
    clock[0] = 110.0
    stage.release()
    await outcomes([*first, fine])
    assert not late.future.done()
    assert [len(text) for batch in stage.batches for text in batch] == [3, 4]


@pytest.mark.parametrize("text", ["poison", "unreadable", "panics", "killer"])
async def test_text_that_cannot_be_scored__fails_alone(start_batcher: Any, text: str) -> None:
    batcher = await start_batcher(max_batch_tokens=640)
    results = await outcomes(submit(batcher, "good", text, "bad", "good"))
    assert [type(result) for result in results] == [Scored, ScoringFailed, Scored, Scored]
    assert batcher.state == "ok"


async def test_batch_that_failed__does_not_change_the_predicted_cost(start_batcher: Any) -> None:
    batcher = await start_batcher(max_batch_tokens=640)
    before_s = batcher.admission.seconds_per_token
    await outcomes(submit(batcher, "good", "poison", "bad", "good"))
    assert batcher.admission.seconds_per_token == before_s
    await outcomes(submit(batcher, "good"))
    assert batcher.admission.seconds_per_token != before_s


async def test_close__cancels_waiting_texts(start_batcher: Any, stage: Any) -> None:
    batcher = await start_batcher(max_batch_tokens=2)
    stage.hold()
    jobs = submit(batcher, "first") + submit(batcher, "second")
    await stage.entered()
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    stage.release()
    await closing
    assert jobs[1].future.cancelled()
    assert stage.closed == stage.made == 1


async def test_model_that_cannot_be_loaded__fails_the_start_and_leaves_no_engine(
    start_batcher: Any, stage: Any
) -> None:
    clients = iter([stage.client])

    async def create() -> Any:
        for make in clients:
            return await make()
        raise ModelError("no such folder")

    with pytest.raises(ModelError, match="no such folder"):
        await start_batcher(workers=2, create=create)
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
async def test_every_text__is_scored_once_and_gets_its_own_outcome(
    stage: Any, start_batcher: Any, requests: list[list[str]], workers: int, pipeline_depth: int, data: st.DataObject
) -> None:
    """Whatever it is batched with, whatever fails in the same batch, and whichever clients leave."""
    count = sum(map(len, requests))
    leaves = data.draw(st.sets(st.integers(0, count - 1), max_size=5))  # drawn first: a draw may end the test
    stage.is_warm = False
    stage.scored.clear()
    sizes: list[int] = []
    batcher = await start_batcher(workers, 40, pipeline_depth=pipeline_depth, attempts=1 << 30, on_batch=sizes.append)
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
    assert (batcher.admission.tokens, batcher.queue.depth) == (0, 0)
    wanted, left = (Counter(job.text for job in some if job.text not in HARMFUL) for some in (stay, leaving))
    for text in wanted | left:
        assert wanted[text] <= stage.scored[stage.encode(text).ids] <= wanted[text] + left[text]
    delivered = sum(sizes)
    failed = sum(job.text in HARMFUL for job in jobs)  # delivered too, unless two engines died of it
    assert sum(wanted.values()) <= delivered <= sum((wanted + left).values()) + failed

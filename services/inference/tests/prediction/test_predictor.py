"""The cache, shared jobs, deadlines and cancelled callers."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from inference.batching.jobs import DeadlineExceeded, Overloaded, ScoringFailed
from inference.prediction.predictor import Prediction, Predictor

Start = Callable[..., Any]


@pytest.fixture
async def start(start_batcher: Any) -> Start:
    """Call it for a predictor on the scripted engine."""

    async def started(cache_bytes: int = 1 << 20, max_wait_s: float = 60.0) -> Predictor:
        batcher = await start_batcher(max_wait_s=max_wait_s)
        return Predictor(batcher, batcher.card, cache_bytes, time.monotonic)

    return started


def score(predictor: Predictor, *texts: str, within_s: float = 30.0) -> asyncio.Task[Any]:
    return asyncio.create_task(predictor.score(texts, time.monotonic() + within_s))


def scored_texts(stage: Any) -> int:
    return sum(len(batch) for batch in stage.batches)


async def test_prediction__has_the_best_label_its_margin_and_all_scores(start: Start) -> None:
    [prediction] = await score(await start(), "bad bad film")
    assert (prediction.label, prediction.score, prediction.margin) == ("NEGATIVE", 0.75, 0.5)
    assert prediction.scores == {"NEGATIVE": 0.75, "POSITIVE": 0.25}
    assert (prediction.tokens, prediction.truncated, prediction.cached, prediction.shared) == (4, False, False, False)


async def test_text_scored_before__comes_from_the_cache(start: Start, stage: Any) -> None:
    predictor = await start()
    [first] = await score(predictor, "good")
    [again] = await score(predictor, "good")
    assert (first.cached, again.cached, again.score) == (False, True, first.score)
    assert (again.queue_s, again.compute_s) == (0.0, 0.0)
    assert scored_texts(stage) == 1


async def test_retry_after__ignores_cached_and_shared_texts(start: Start, stage: Any) -> None:
    predictor = await start(max_wait_s=1e-9)
    await score(predictor, "known")
    stage.hold()
    scoring = score(predictor, "on its way")
    await stage.entered(2)
    deadline_s = time.monotonic() + 30.0
    assert predictor.retry_after_s(["known", "on its way"], deadline_s) is None
    assert predictor.retry_after_s(["known", "new"], deadline_s) is not None
    stage.release()
    await scoring


async def test_no_cache__scores_every_text(start: Start, stage: Any) -> None:
    predictor = await start(cache_bytes=0)
    await asyncio.gather(score(predictor, "good", "good"), score(predictor, "good"))
    assert scored_texts(stage) == 3


async def test_same_text_at_once__is_scored_once(start: Start, stage: Any) -> None:
    predictor = await start()
    stage.hold()
    tasks = [score(predictor, "good", "good") for _ in range(5)]
    await stage.entered()
    stage.release()
    answers = [answer for answers in await asyncio.gather(*tasks) for answer in answers]
    assert scored_texts(stage) == 1
    assert sorted(answer.shared for answer in answers) == [False] * 2 + [True] * 8


async def test_first_caller_leaves__joined_callers_are_answered(start: Start, stage: Any) -> None:
    predictor = await start()
    stage.hold()
    blocking = score(predictor, "something else")
    await stage.entered()
    leaver, stayer = score(predictor, "good"), score(predictor, "good")
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.wait([leaver])
    stage.release()
    assert isinstance((await stayer)[0], Prediction)
    await blocking


async def test_all_callers_leave__the_text_is_not_scored(start: Start, stage: Any) -> None:
    predictor = await start()
    stage.hold()
    blocking = score(predictor, "something else")
    await stage.entered()
    leavers = [score(predictor, "good"), score(predictor, "good")]
    await asyncio.sleep(0)
    for task in leavers:
        task.cancel()
    await asyncio.wait(leavers)
    stage.release()
    await blocking
    assert isinstance((await score(predictor, "good"))[0], Prediction)
    assert scored_texts(stage) == 2


async def test_late_answer__raises_only_for_the_shorter_deadline(start: Start, stage: Any) -> None:
    predictor = await start()
    stage.hold()
    patient = score(predictor, "good")
    await stage.entered()
    with pytest.raises(DeadlineExceeded):
        await score(predictor, "good", within_s=0.01)
    stage.release()
    assert isinstance((await patient)[0], Prediction)


async def test_longer_deadline_joins__extends_the_job(start: Start, stage: Any) -> None:
    predictor = await start()
    stage.hold()
    blocking = score(predictor, "something else")
    await stage.entered()
    hasty, patient = score(predictor, "good", within_s=0.02), score(predictor, "good", within_s=30.0)
    with pytest.raises(DeadlineExceeded):
        await hasty
    stage.release()
    assert isinstance((await patient)[0], Prediction)
    await blocking


async def test_refused_list__releases_the_jobs_it_joined(start: Start, stage: Any) -> None:
    predictor = await start(max_wait_s=1e-9)
    stage.hold()
    first = score(predictor, "good")
    await stage.entered()
    with pytest.raises(Overloaded):
        await score(predictor, "good", "bad")
    first.cancel()
    await asyncio.wait([first])
    stage.release()
    [answer] = await score(predictor, "good")
    assert not answer.cached


async def test_failed_text__is_not_cached(start: Start, stage: Any) -> None:
    predictor = await start()
    for _ in range(2):
        failed, fine = await score(predictor, "poison", "good")
        assert isinstance(failed, ScoringFailed)
        assert isinstance(fine, Prediction)
    assert len(predictor.cache) == 1


async def test_expired_job__is_not_shared_and_does_not_replace_the_next(start_batcher: Any, stage: Any) -> None:
    clock = [100.0]
    batcher = await start_batcher(now=lambda: clock[0])
    predictor = Predictor(batcher, batcher.card, 1 << 20, lambda: clock[0])
    stage.hold()
    expired = asyncio.create_task(predictor.score(["good"], 160.0))
    await stage.entered()
    clock[0] = 160.0
    second = asyncio.create_task(predictor.score(["good"], 230.0))
    await asyncio.sleep(0)
    expired.cancel()
    await asyncio.wait([expired])
    third = asyncio.create_task(predictor.score(["good"], 230.0))
    await asyncio.sleep(0)
    stage.release()
    answers = [answer for task in (second, third) for answer in await task]
    assert [answer.shared for answer in answers if isinstance(answer, Prediction)] == [False, True]

"""Tests of what happens to a batch that raises."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.batching.isolation import EngineBroken, Outcomes, Score, score_with_isolation
from inference.batching.jobs import Job, ScoringFailed
from inference.engines.base import Answer, Row

PROBE = "-1"


def batch_of(size: int) -> list[Job]:
    return [Job(n, str(n), 1, 0.0, 1.0, cast(Any, None)) for n in range(size)]


def failing_on(poison: set[int]) -> Score:
    async def score(texts: Sequence[str]) -> Answer:
        if poison.intersection(map(int, texts)):
            raise ValueError("poison")
        return Answer([Row((float(text),), 1) for text in texts], 0.25)

    return score


@given(st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))))
async def test_only_poison_fails__and_every_job_has_one_outcome(case: tuple[int, set[int]]) -> None:
    size, poison = case
    outcomes: Outcomes = {}
    batch = batch_of(size)
    assert await score_with_isolation(failing_on(poison), PROBE, batch, outcomes) == (None if poison else 0.25)
    assert set(outcomes) == set(batch)
    for job, outcome in outcomes.items():
        if job.number in poison:
            assert isinstance(outcome, ScoringFailed)
        else:
            assert outcome == Row((float(job.number),), 1)


async def test_engine_that_fails_on_its_probe_too__is_broken_and_no_text_is_blamed() -> None:
    outcomes: Outcomes = {}
    with pytest.raises(EngineBroken):
        await score_with_isolation(failing_on({-1, 0, 1, 2}), PROBE, batch_of(3), outcomes)
    assert outcomes == {}


@pytest.mark.parametrize("scores", [[], [(1.0,), (1.0,)], [(float("nan"),)], [(float("inf"),)]])
async def test_answer_that_is_not_one_row_of_numbers__fails_the_text(scores: list[tuple[float, ...]]) -> None:
    async def score(texts: Sequence[str]) -> Answer:
        return Answer([Row(row, 1) for row in (scores if texts != [PROBE] else [(0.5,)])], 0.0)

    outcomes: Outcomes = {}
    [job] = batch_of(1)
    await score_with_isolation(score, PROBE, [job], outcomes)
    assert isinstance(outcomes[job], ScoringFailed)

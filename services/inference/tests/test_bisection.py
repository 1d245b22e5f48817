"""Tests of what happens to a batch that raises."""

from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.bisection import EngineBroken, Outcomes, Score, score_apart
from inference.engine import Encoded
from inference.jobs import Job, ScoringFailed

PROBE = Encoded((-1,))


def batch_of(size: int) -> list[Job]:
    return [Job(n, "", 1, 0.0, 1.0, cast(Any, None), encoded=Encoded((n,))) for n in range(size)]


def failing_on(poison: set[int]) -> Score:
    def score(batch: Sequence[Encoded]) -> list[tuple[float, ...]]:
        if poison.intersection(text.ids[0] for text in batch):
            raise ValueError("poison")
        return [(float(text.ids[0]),) for text in batch]

    return score


@given(st.integers(1, 40).flatmap(lambda size: st.tuples(st.just(size), st.sets(st.integers(0, size - 1)))))
def test_only_poison_fails__and_every_job_has_one_outcome(case: tuple[int, set[int]]) -> None:
    size, poison = case
    outcomes: Outcomes = {}
    batch = batch_of(size)
    assert score_apart(failing_on(poison), PROBE, batch, outcomes) == (not poison)
    assert set(outcomes) == set(batch)
    for job, outcome in outcomes.items():
        assert isinstance(outcome, ScoringFailed) if job.number in poison else outcome == (float(job.number),)


def test_engine_that_fails_on_its_probe_too__is_broken_and_no_text_is_blamed() -> None:
    outcomes: Outcomes = {}
    with pytest.raises(EngineBroken):
        score_apart(failing_on({-1, 0, 1, 2}), PROBE, batch_of(3), outcomes)
    assert outcomes == {}


@pytest.mark.parametrize("rows", [[], [(1.0,), (1.0,)], [(float("nan"),)], [(float("inf"),)]])
def test_answer_that_is_not_one_row_of_numbers__fails_the_text(rows: list[tuple[float, ...]]) -> None:
    outcomes: Outcomes = {}
    [job] = batch_of(1)
    score_apart(lambda batch: rows if batch[0] != PROBE else [(0.5,)], PROBE, [job], outcomes)
    assert isinstance(outcomes[job], ScoringFailed)

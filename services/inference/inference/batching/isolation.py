"""Owns what happens to a batch that raises: halved until only the texts at fault fail; knows no engine."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from inference.batching.jobs import Job, ScoringFailed
from inference.engines.base import Answer, Row

Outcomes: TypeAlias = dict[Job, Row | ScoringFailed]
Score: TypeAlias = Callable[[Sequence[str]], Awaitable[Answer]]


class EngineBroken(Exception):
    """The engine fails on what it scored before: it, not the text, is at fault."""


async def score_with_isolation(score: Score, probe: str, batch: Sequence[Job], outcomes: Outcomes) -> float | None:
    """Add one outcome per job of `batch` to `outcomes`; a job fails only if it fails alone.

    Before a text is blamed, the engine must score `probe` again. Raises EngineBroken if it can't: then the jobs that
    are not in `outcomes` were not at fault. Returns the seconds that reading the batch took if it was scored at once,
    which tells what a batch costs.
    """
    try:
        answer = _checked(await score([job.text for job in batch]), len(batch))
    except Exception as error:
        if len(batch) > 1:
            middle = len(batch) // 2
            await score_with_isolation(score, probe, batch[:middle], outcomes)
            await score_with_isolation(score, probe, batch[middle:], outcomes)
            return None
        await _confirm(score, probe)
        outcomes[batch[0]] = ScoringFailed(type(error).__name__)
        return None
    outcomes.update(zip(batch, answer.rows, strict=True))
    return answer.tokenize_s


def _checked(answer: Answer, expected: int) -> Answer:
    if len(answer.rows) != expected:
        raise ValueError("the engine answered another number of texts than it was given")
    if not all(math.isfinite(value) for row in answer.rows for value in row.scores):
        raise ValueError("the engine answered what is not a number")
    return answer


async def _confirm(score: Score, probe: str) -> None:
    try:
        _checked(await score([probe]), 1)
    except Exception as error:
        raise EngineBroken(type(error).__name__) from error

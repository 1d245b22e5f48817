"""Owns what happens to a batch that raises: halved until only the texts at fault fail; knows no threads."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from inference.engine import Encoded
from inference.jobs import Job, ScoringFailed

Row: TypeAlias = tuple[float, ...]
Outcomes: TypeAlias = dict[Job, Row | ScoringFailed]
Score: TypeAlias = Callable[[Sequence[Encoded]], Sequence[Row]]


class EngineBroken(Exception):
    """The engine fails on what it scored before: it, not the text, is at fault."""


def score_apart(score: Score, probe: Encoded, batch: Sequence[Job], outcomes: Outcomes) -> bool:
    """Add one outcome per job of `batch` to `outcomes`; a job fails only if it fails alone.

    Before a text is blamed, the engine must score `probe` again. Raises EngineBroken if it can't: then the jobs that
    are not in `outcomes` were not at fault. True if the batch was scored at once, which tells what a batch costs.
    """
    try:
        rows = _checked(score([encoded(job) for job in batch]), len(batch))
    except Exception as error:
        if len(batch) > 1:
            middle = len(batch) // 2
            score_apart(score, probe, batch[:middle], outcomes)
            score_apart(score, probe, batch[middle:], outcomes)
            return False
        _confirm(score, probe)
        outcomes[batch[0]] = ScoringFailed(type(error).__name__)
        return False
    outcomes.update(zip(batch, rows, strict=True))
    return True


def encoded(job: Job) -> Encoded:
    """The job's tokens; it is not scored before it was read."""
    assert job.encoded is not None
    return job.encoded


def _checked(rows: Sequence[Row], expected: int) -> Sequence[Row]:
    if len(rows) != expected:
        raise ValueError("the engine answered another number of texts than it was given")
    if not all(math.isfinite(value) for row in rows for value in row):
        raise ValueError("the engine answered what is not a number")
    return rows


def _confirm(score: Score, probe: Encoded) -> None:
    try:
        _checked(score([probe]), 1)
    except Exception as error:
        raise EngineBroken(type(error).__name__) from error

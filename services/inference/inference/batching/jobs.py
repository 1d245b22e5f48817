"""The unit of work of the batcher, its outcomes and its errors."""

import asyncio
from dataclasses import dataclass, field
from typing import TypeAlias


class ScoringFailed(Exception):
    """This text could not be scored; its neighbours were."""


class Overloaded(Exception):
    """The request was refused. It should succeed after `retry_after_s` if nothing else arrives."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"retry after {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class DeadlineExceeded(Exception):
    """The answer is late, or is certain to be."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One probability per label, and the time it took."""

    scores: tuple[float, ...]
    tokens: int
    truncated: bool
    queue_s: float
    compute_s: float


Outcome: TypeAlias = Scored | ScoringFailed


@dataclass(slots=True, eq=False)
class Job:
    """One text in the batcher. `tokens` is an estimate; `waiters` counts the requests that share its future."""

    number: int
    text: str
    tokens: int
    submitted_s: float
    deadline_s: float
    future: asyncio.Future[Outcome] = field(repr=False)
    attempts: int = 0
    waiters: int = 1

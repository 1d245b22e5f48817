"""Owns the batcher's unit of work, its outcomes and its errors; knows no queue, no thread and no runtime."""

import asyncio
from dataclasses import dataclass, field
from typing import TypeAlias


class ScoringFailed(Exception):
    """This text alone could not be scored; its neighbours were."""


class Overloaded(Exception):
    """There is no room for this request now; after `retry_after_s` there should be, if nothing else comes."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"retry after {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class DeadlineExceeded(Exception):
    """The answer was not there before the request's deadline, or it was clear at once that it would not be."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One probability per label, and what it took."""

    scores: tuple[float, ...]
    tokens: int
    truncated: bool
    queue_s: float
    compute_s: float


Outcome: TypeAlias = Scored | ScoringFailed


@dataclass(slots=True, eq=False)
class Job:
    """One text on its way through the batcher. Who waits for it may extend `deadline_s`."""

    number: int
    text: str
    tokens: int  # an estimate: the engine counts them
    submitted_s: float
    deadline_s: float
    future: asyncio.Future[Outcome] = field(repr=False)
    attempts: int = 0

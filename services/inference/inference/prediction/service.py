"""Owns the rule that nothing is answered or refused off the record; every route of every protocol goes through here."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from common.journal.journal import JournalFull
from inference.batching.jobs import DeadlineExceeded, Overloaded, ScoringFailed
from inference.metrics import InferenceMetrics
from inference.prediction.predictor import Answer, Predictor
from inference.prediction.recorder import PredictionRecorder, RequestMetadata

_CALM_S: Final = 2.0  # without a refusal, until a journal that is drained bit by bit counts as one that takes events


class PredictionService:
    """Scores, records, counts."""

    def __init__(
        self, scorer: Predictor, records: PredictionRecorder, instruments: InferenceMetrics, now: Callable[[], float]
    ) -> None:
        self.card = scorer.card
        self._scorer = scorer
        self._records = records
        self._instruments = instruments
        self.now = now
        self._unrecorded_at_s = -math.inf

    @property
    def near_capacity(self) -> bool:
        """Refusals are near: it pays to ask `refused_now` first."""
        return self._scorer.near_capacity

    @property
    def can_record(self) -> bool:
        """No answer was withheld in the last moments because it could not be put on record."""
        return self.now() - self._unrecorded_at_s >= _CALM_S

    def refused_now(self, route: str, text: str, deadline_s: float) -> float | None:
        """The `retry_after_s` of the Overloaded that `answer` would raise, counted alike; None if it would not.

        Nothing is raised: in a flood that would cost more than all else here.
        """
        retry_after_s = self._scorer.retry_after_s([text], deadline_s)
        if retry_after_s is None or retry_after_s == math.inf:
            return None  # DeadlineExceeded: `answer` raises that
        self._refused(route, "overloaded", 1)
        return retry_after_s

    async def answer(self, caller: RequestMetadata, texts: Sequence[str], *, all_or_none: bool = False) -> list[Answer]:
        """Return one answer per text, in order, recorded before this returns.

        With `all_or_none`, one failed text fails and is recorded for all, because no other is answered.
        Raises Overloaded, DeadlineExceeded and JournalFull, each counted and recorded.
        """
        try:
            answers = await self._scorer.score(texts, caller.deadline_s)
            if all_or_none and (failed := [answer for answer in answers if isinstance(answer, ScoringFailed)]):
                answers = [failed[0]] * len(answers)
            self._records.answered(caller, texts, answers, self.now() - caller.started_s)
        except Overloaded:
            self._refused(caller.route, "overloaded", len(texts))
            raise
        except DeadlineExceeded:
            self._records.refused(caller.route, "timeout", len(texts))
            self._instruments.refused("deadline", len(texts))
            raise
        except JournalFull:
            self._unrecorded_at_s = self.now()
            self._refused(caller.route, "journal", len(texts))
            raise
        for answer in answers:
            self._instruments.answered(answer)
        return answers

    def _refused(self, route: str, reason: str, texts: int) -> None:
        self._records.refused(route, "unavailable", texts)
        self._instruments.refused(reason, texts)

"""Scores texts and records every answer and refusal, for all protocols."""

import math
from collections.abc import Callable, Sequence
from typing import Final

from common.journal.journal import JournalFull
from inference.batching.jobs import DeadlineExceeded, Overloaded, ScoringFailed
from inference.metrics import InferenceMetrics
from inference.prediction.predictor import Answer, Predictor
from inference.prediction.recorder import PredictionRecorder, RequestMetadata

_CALM_S: Final = 2.0  # without a failed write, until a journal that was full counts as writable


class PredictionService:
    """Scores, records and counts."""

    def __init__(
        self, predictor: Predictor, recorder: PredictionRecorder, metrics: InferenceMetrics, now: Callable[[], float]
    ) -> None:
        self.card = predictor.card
        self._predictor = predictor
        self._recorder = recorder
        self._metrics = metrics
        self.now = now
        self._unrecorded_at_s = -math.inf

    @property
    def near_capacity(self) -> bool:
        """Refusals are near: check `refused_now` first."""
        return self._predictor.near_capacity

    @property
    def can_record(self) -> bool:
        """No answer failed in the last seconds because it could not be recorded."""
        return self.now() - self._unrecorded_at_s >= _CALM_S

    def refused_now(self, route: str, text: str, deadline_s: float) -> float | None:
        """Return `retry_after_s` of the Overloaded that `answer` would raise, and count it; None if it would not.

        Returned because raising it costs more than the rest of a refusal.
        """
        retry_after_s = self._predictor.retry_after_s([text], deadline_s)
        if retry_after_s is None or retry_after_s == math.inf:
            return None  # `answer` raises DeadlineExceeded
        self._refused(route, "overloaded", 1)
        return retry_after_s

    async def answer(self, caller: RequestMetadata, texts: Sequence[str], *, all_or_none: bool = False) -> list[Answer]:
        """Return one answer per text, in order, recorded before this returns.

        With `all_or_none`, one failed text fails and is recorded for all, because no other is answered.
        Raises Overloaded, DeadlineExceeded and JournalFull, each counted and recorded.
        """
        try:
            answers = await self._predictor.score(texts, caller.deadline_s)
            if all_or_none and (failed := [answer for answer in answers if isinstance(answer, ScoringFailed)]):
                answers = [failed[0]] * len(answers)
            self._recorder.answered(caller, texts, answers, self.now() - caller.started_s)
        except Overloaded:
            self._refused(caller.route, "overloaded", len(texts))
            raise
        except DeadlineExceeded:
            self._recorder.refused(caller.route, "timeout", len(texts))
            self._metrics.refused("deadline", len(texts))
            raise
        except JournalFull:
            self._unrecorded_at_s = self.now()
            self._refused(caller.route, "journal", len(texts))
            raise
        for answer in answers:
            self._metrics.answered(answer)
        return answers

    def _refused(self, route: str, reason: str, texts: int) -> None:
        self._recorder.refused(route, "unavailable", texts)
        self._metrics.refused(reason, texts)

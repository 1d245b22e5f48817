"""Predictions from the cache, from a job in flight, or from a new job."""

import asyncio
import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from inference.batching.batcher import Batcher
from inference.batching.jobs import DeadlineExceeded, Job, Outcome, Scored, ScoringFailed
from inference.engines.base import ModelCard
from inference.prediction.cache import ResultCache, key_of


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answered text: `label` has the highest score, `margin` is its lead over the second."""

    label: str
    score: float
    margin: float
    scores: dict[str, float]
    tokens: int
    truncated: bool
    queue_s: float = 0.0
    compute_s: float = 0.0
    cached: bool = False
    shared: bool = False  # waited for another request's job


Answer: TypeAlias = Prediction | ScoringFailed


@dataclass(frozen=True, slots=True)
class _ResultSource:
    """Where one text's result is, or will be."""

    source: Scored | Job
    shared: bool = False


class Predictor:
    """Answers texts. Concurrent requests for one text share a job; with a cache of 0 bytes nothing is shared."""

    def __init__(self, batcher: Batcher, card: ModelCard, cache_bytes: int, now: Callable[[], float]) -> None:
        self.card = card
        self.cache = ResultCache(cache_bytes)
        self._batcher = batcher
        self._in_flight: dict[bytes, Job] = {}
        self._now = now
        self._reuses = cache_bytes > 0
        self._unique = itertools.count()

    async def score(self, texts: Sequence[str], deadline_s: float) -> list[Answer]:
        """Return one answer per text, in order; a text that can't be scored fails alone.

        Raises Overloaded at once, and DeadlineExceeded when any answer is late, or at once if it is certain to be. If
        the caller is cancelled, jobs that no other caller waits for are withdrawn.
        """
        started_s = self._now()
        held: list[Job] = []
        try:
            sources = self._sources(texts, deadline_s, held)
            if held:
                await asyncio.wait([job.future for job in held], timeout=max(0.0, deadline_s - self._now()))
            elapsed_s = self._now() - started_s
            return [self._answer(source, elapsed_s) for source in sources]
        finally:
            for job in held:
                job.waiters -= 1
                if not job.waiters:
                    job.future.cancel()

    @property
    def near_capacity(self) -> bool:
        """Refusals are near."""
        return self._batcher.admission.near_capacity

    def retry_after_s(self, texts: Sequence[str], deadline_s: float) -> float | None:
        """Return `retry_after_s` of the Overloaded that `score` would raise: None if it would not, inf for never."""
        keys = {self._key(text): text for text in texts}
        new = [text for key, text in keys.items() if self.cache.get(key) is None and key not in self._in_flight]
        return self._batcher.retry_after_s(new, deadline_s) if new else None

    def _sources(self, texts: Sequence[str], deadline_s: float, held: list[Job]) -> list[_ResultSource]:
        """Find or submit each text. Every job is in `held` once, even if this raises."""
        keys = [self._key(text) for text in texts]
        found: dict[bytes, _ResultSource] = {}
        missing: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if key not in found and key not in missing:
                if (source := self._find(key, deadline_s, held)) is not None:
                    found[key] = source
                else:
                    missing[key] = text
        jobs = self._batcher.submit(list(missing.values()), deadline_s) if missing else []
        for key, job in zip(missing, jobs, strict=True):
            self._in_flight[key] = job
            job.future.add_done_callback(functools.partial(self._finish, key, job))
            held.append(job)
            found[key] = _ResultSource(job)
        return [found[key] for key in keys]

    def _find(self, key: bytes, deadline_s: float, held: list[Job]) -> _ResultSource | None:
        if (scored := self.cache.get(key)) is not None:
            return _ResultSource(scored)
        job = self._in_flight.get(key)
        if job is None or job.future.cancelled() or not self._batcher.queue.extend(job, deadline_s):
            return None
        job.waiters += 1
        held.append(job)
        return _ResultSource(job, shared=True)

    def _key(self, text: str) -> bytes:
        return key_of(self.card.revision, text) if self._reuses else next(self._unique).to_bytes(8)

    def _finish(self, key: bytes, job: Job, _future: asyncio.Future[Outcome]) -> None:
        if self._in_flight.get(key) is job:  # not a later job for the same text
            del self._in_flight[key]
        if self._reuses and isinstance(outcome := _outcome(job), Scored):
            self.cache.put(key, outcome)

    def _answer(self, result: _ResultSource, elapsed_s: float) -> Answer:
        if isinstance(result.source, Scored):
            return _prediction(self.card, result.source, cached=True)
        outcome = _outcome(result.source)
        if outcome is None:
            raise DeadlineExceeded
        if isinstance(outcome, ScoringFailed):
            return outcome
        compute_s = min(outcome.compute_s, elapsed_s)  # a request that joined late did not wait for all of it
        queue_s = min(outcome.queue_s, elapsed_s - compute_s)
        return _prediction(self.card, outcome, queue_s=queue_s, compute_s=compute_s, shared=result.shared)


def _outcome(job: Job) -> Outcome | None:
    return job.future.result() if job.future.done() and not job.future.cancelled() else None


def _prediction(
    card: ModelCard,
    scored: Scored,
    *,
    queue_s: float = 0.0,
    compute_s: float = 0.0,
    cached: bool = False,
    shared: bool = False,
) -> Prediction:
    best, *others = sorted(scored.scores, reverse=True)
    return Prediction(
        label=card.labels[scored.scores.index(best)],
        score=best,
        margin=best - max(others, default=0.0),
        scores=dict(zip(card.labels, scored.scores, strict=True)),
        tokens=scored.tokens,
        truncated=scored.truncated,
        queue_s=queue_s,
        compute_s=compute_s,
        cached=cached,
        shared=shared,
    )

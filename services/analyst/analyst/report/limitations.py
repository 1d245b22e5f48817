"""What a reader should know before trusting the figures of a report, in sentences of fixed words."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from analyst.facts.checks import ENOUGH, ENOUGH_TO_COMPARE, has_enough
from analyst.facts.facts import Facts
from analyst.report.rendering import number

LAG_WORTH_SAYING_S: Final = 60.0


def limitations(facts: Facts) -> list[str]:
    """The sentences; none where the figures are exact and complete."""
    return [*_estimates(facts), *_samples(facts), *_thresholds(facts), *_lag(facts)]


def _estimates(facts: Facts) -> Iterator[str]:
    latency = facts["latency_ms.p95"]
    estimates = [fact.rel_error for fact in facts.rules if fact.method == "sketch" and fact.current is not None]
    if latency.method == "sketch":
        yield f"Latency percentiles are estimates: relative error at most {_percent(latency.rel_error)}."
    elif estimates:
        error = _percent(max(estimates))
        yield f"Latency percentiles held against thresholds are estimates: relative error at most {error}."


def _samples(facts: Facts) -> Iterator[str]:
    if not has_enough(facts):
        yield f"Fewer than {ENOUGH} requests in this window: the figures say little."
    if not facts["requests"].previous_n:
        yield "The window before has no requests: nothing can be compared."
    if facts.reference is None:
        yield "Drift could not be read: it is not checked."
    elif any(fact.compared_n < ENOUGH_TO_COMPARE for fact in facts.drifts):
        yield f"Fewer than {ENOUGH_TO_COMPARE} predictions here or in the reference: drift is not judged."


def _thresholds(facts: Facts) -> Iterator[str]:
    if unknown := [fact for fact in facts.rules if fact.rule is not None and fact.rule.breached is None]:
        yield f"Thresholds without enough samples to judge: {len(unknown)}."
    if facts.unjudged:
        yield f"Thresholds are judged up to now, not in a window of the past: {facts.unjudged} left out."


def _lag(facts: Facts) -> Iterator[str]:
    if facts.lag_s is None:
        yield "How far ingestion is behind is not known."
    elif facts.lag_s >= LAG_WORTH_SAYING_S:
        lag = timedelta(seconds=round(facts.lag_s))
        yield f"Ingestion is behind by {lag}: the newest predictions are missing."


def _percent(share: float) -> str:
    return f"{number(share * 100)}%"

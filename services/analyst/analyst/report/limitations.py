"""What a reader should know before trusting the figures of a report."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from analyst.facts.checks import ENOUGH, ENOUGH_TO_COMPARE, has_enough
from analyst.facts.facts import Facts
from analyst.report.format import number

LAG_WORTH_SAYING_S: Final = 60.0


def limitations(facts: Facts) -> list[str]:
    """Return one sentence for each limitation."""
    return [*_estimates(facts), *_samples(facts), *_thresholds(facts), *_lag(facts)]


def _estimates(facts: Facts) -> Iterator[str]:
    latency = facts["latency_ms.p95"]
    estimates = [fact.rel_error for fact in facts.rules if fact.method == "sketch" and fact.current is not None]
    if latency.method == "sketch":
        yield f"Latency percentiles are estimates: relative error at most {_percent(latency.rel_error)}."
    elif estimates:
        error = _percent(max(estimates))
        yield f"Latency percentiles compared with thresholds are estimates: relative error at most {error}."


def _samples(facts: Facts) -> Iterator[str]:
    if not has_enough(facts):
        yield f"Fewer than {ENOUGH} requests in this window: the figures say little."
    if not facts["requests"].previous_n:
        yield "There are no earlier requests to compare with."
    if facts.reference is None:
        yield "Drift is unavailable, so it was not checked."
    elif any(fact.compared_n < ENOUGH_TO_COMPARE for fact in facts.drifts):
        yield f"Fewer than {ENOUGH_TO_COMPARE} predictions here or in the reference: drift is not evaluated."


def _thresholds(facts: Facts) -> Iterator[str]:
    if unknown := [fact for fact in facts.rules if fact.rule is not None and fact.rule.breached is None]:
        yield f"Thresholds without enough samples: {len(unknown)}."
    if facts.skipped_rules:
        yield f"Thresholds are evaluated up to now, not for a past window: {facts.skipped_rules} left out."


def _lag(facts: Facts) -> Iterator[str]:
    if facts.lag_s is None:
        yield "The delay of ingestion is not known."
    elif facts.lag_s >= LAG_WORTH_SAYING_S:
        lag = timedelta(seconds=round(facts.lag_s))
        yield f"Ingestion is delayed by {lag}: the newest predictions are missing."


def _percent(share: float) -> str:
    return f"{number(share * 100)}%"

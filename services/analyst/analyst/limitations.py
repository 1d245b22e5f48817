"""What a reader should know before trusting the figures of a report, in sentences of fixed words."""

from datetime import timedelta
from typing import Final

from analyst.checks import ENOUGH, ENOUGH_TO_COMPARE, has_enough
from analyst.facts import Facts
from analyst.rendering import number

LAG_WORTH_SAYING_S: Final = 60.0


def limitations(facts: Facts) -> list[str]:
    """The sentences; none where the figures are exact and complete."""
    found = []
    latency = facts["latency_ms.p95"]
    estimates = [fact.rel_error for fact in facts.rules if fact.method == "sketch" and fact.current is not None]
    if latency.method == "sketch":
        found.append(f"Latency percentiles are estimates: relative error at most {_percent(latency.rel_error)}.")
    elif estimates:
        error = _percent(max(estimates))
        found.append(f"Latency percentiles held against thresholds are estimates: relative error at most {error}.")
    if not has_enough(facts):
        found.append(f"Fewer than {ENOUGH} requests in this window: the figures say little.")
    if not facts["requests"].previous_n:
        found.append("The window before has no requests: nothing can be compared.")
    if facts.reference is None:
        found.append("Drift could not be read: it is not checked.")
    elif any(fact.compared_n < ENOUGH_TO_COMPARE for fact in facts.drifts):
        found.append(f"Fewer than {ENOUGH_TO_COMPARE} predictions here or in the reference: drift is not judged.")
    if unknown := [fact for fact in facts.rules if fact.rule is not None and fact.rule.breached is None]:
        found.append(f"Thresholds without enough samples to judge: {len(unknown)}.")
    if facts.lag_s is None:
        found.append("How far ingestion is behind is not known.")
    elif facts.lag_s >= LAG_WORTH_SAYING_S:
        lag = timedelta(seconds=round(facts.lag_s))
        found.append(f"Ingestion is behind by {lag}: the newest predictions are missing.")
    return found


def _percent(share: float) -> str:
    return f"{number(share * 100)}%"

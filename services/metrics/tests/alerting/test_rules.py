"""The state of a rule, and which documents are valid."""

from typing import Any, cast

import pytest
from pydantic import ValidationError

from common.contracts.aggregates import Summary
from common.contracts.events import Outcome
from common.contracts.thresholds import ThresholdRule
from metrics.alerting.rules import DEFAULT, LATE_S, Thresholds, check_limits, evaluate_rule, suppress_while_lagging
from metrics.errors import InvalidField
from metrics.query.accumulator import Accumulator, GroupKey, Row
from metrics.ranges import Range
from metrics.storage.histogram import BIN_BITS

MINUTE = Range(0, 60_000_000)


def summary(**counts: int) -> Summary:
    """Return a summary with these outcome counts. Half of the answers have a score."""
    tally = Accumulator()
    for name, n in counts.items():
        outcome = cast(Outcome, name)
        latencies, scores, scored = n << BIN_BITS * 421, n // 2 << BIN_BITS * 7, n // 2
        source = GroupKey("m", "/predict", outcome, "POSITIVE")
        histograms = [latencies, scores, 0, 0, 0, 0]
        tally.add(Row(0, source, "", 9_000, n, 9_000 * n, scored, 700_000 * scored, 0, 0, 0, histograms))
    return tally.summary(MINUTE)


@pytest.mark.parametrize(
    ("rule", "current", "breached"),
    [
        ({"metric": "requests", "above": 99}, 100, True),
        ({"metric": "requests", "above": 100}, 100, False),
        ({"metric": "predictions", "below": 70}, 60, True),
        ({"metric": "predictions", "below": 60}, 60, False),
        ({"metric": "throughput_per_s", "below": 2}, 1.0, True),
        ({"metric": "error_rate", "above": 0.2}, 0.25, True),
        ({"metric": "limited_rate", "above": 0.2}, 0.2, False),
        ({"metric": "latency_ms.max", "above": 8.5}, 9.0, True),
        ({"metric": "latency_ms.mean", "above": 9.5}, 9.0, False),
        ({"metric": "confidence.mean", "below": 0.75}, 0.7, True),
        ({"metric": "requests", "above": 1, "min_samples": 101}, 100, True),
        ({"metric": "limited_rate", "above": 0.1, "min_samples": 100}, 0.2, True),
        ({"metric": "limited_rate", "above": 0.1, "min_samples": 101}, 0.2, None),
        ({"metric": "error_rate", "above": 0.1, "min_samples": 80}, 0.25, True),
        ({"metric": "error_rate", "above": 0.1, "min_samples": 81}, 0.25, None),
        ({"metric": "confidence.mean", "below": 0.9, "min_samples": 30}, 0.7, True),
        ({"metric": "confidence.mean", "below": 0.9, "min_samples": 31}, 0.7, None),
        ({"metric": "latency_ms.p50", "above": 1, "min_samples": 61}, 9.0, None),
        ({"metric": "label_share", "above": 0.4, "where": {"label": "POSITIVE"}}, 1.0, True),
        ({"metric": "label_share", "above": 0.4, "where": {"label": "NEGATIVE"}}, 0.0, False),
        ({"metric": "label_share", "above": 0.4, "where": {"label": "POSITIVE"}, "min_samples": 61}, 1.0, None),
    ],
)
def test_rule__is_breached_past_its_limit_once_there_are_samples(
    rule: dict[str, Any], current: float, breached: bool | None
) -> None:
    state = evaluate_rule(ThresholdRule(name="r", **rule), summary(ok=60, error=20, limited=20))
    assert state.current == pytest.approx(current)
    assert state.breached is breached


@pytest.mark.parametrize("metric", ["requests", "predictions", "throughput_per_s"])
def test_count_of_nothing__is_known(metric: str) -> None:
    assert evaluate_rule(ThresholdRule(name="r", metric=metric, below=1, min_samples=20), summary()).breached is True


@pytest.mark.parametrize(
    ("rule", "breached"),
    [
        ({"metric": "requests", "above": 99}, True),
        ({"metric": "requests", "above": 100}, None),
        ({"metric": "predictions", "below": 60}, False),
        ({"metric": "throughput_per_s", "below": 2}, None),
        ({"metric": "error_rate", "above": 0.25}, False),
        ({"metric": "error_rate", "above": 0.1, "min_samples": 81}, None),
    ],
)
def test_count_while_events_are_late__is_at_least_so_much(rule: dict[str, Any], breached: bool | None) -> None:
    state = evaluate_rule(ThresholdRule(name="r", **rule), summary(ok=60, error=20, limited=20))
    assert suppress_while_lagging(state, LATE_S) == state
    assert (
        suppress_while_lagging(state, None).breached is suppress_while_lagging(state, LATE_S + 1).breached is breached
    )


@pytest.mark.parametrize("metric", ["error_rate", "limited_rate", "latency_ms.p95", "confidence.mean"])
def test_figure_over_nothing__is_unknown(metric: str) -> None:
    assert evaluate_rule(ThresholdRule(name="r", metric=metric, above=0, min_samples=0), summary()).breached is None


def test_default_document__is_valid_and_judges_every_summary() -> None:
    document = Thresholds.model_validate_json(DEFAULT.model_dump_json(exclude_none=True))
    assert [evaluate_rule(rule, summary(ok=1_000)).breached for rule in document.rules] == [False] * len(document.rules)


def test_two_rules_of_one_name__are_refused() -> None:
    rule = ThresholdRule(name="r", metric="requests", above=1)
    with pytest.raises(ValidationError, match="different names"):
        Thresholds(rules=[rule, rule])


def test_label_share__without_a_label__is_rejected() -> None:
    with pytest.raises(ValidationError, match="needs where"):
        ThresholdRule(name="r", metric="label_share", above=0.4)


def test_share_limit__outside_0_to_1__names_the_field() -> None:
    rule = ThresholdRule(name="r", metric="error_rate", above=5.0)
    with pytest.raises(InvalidField) as caught:
        check_limits(Thresholds(rules=[rule]))
    assert caught.value.field == "rules.0.above"

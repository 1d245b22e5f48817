from collections.abc import Callable

import pytest

from analyst.facts.checks import run_checks
from analyst.facts.facts import read_facts
from analyst.report.limitations import limitations
from common.contracts.aggregates import SKETCH_RELATIVE_ERROR, Aggregate, DriftReport
from common.contracts.thresholds import MetricName, ThresholdRule, ThresholdState

MakeAggregate = Callable[..., Aggregate]


def test_limitations__name_estimates_small_numbers_unknown_thresholds_and_lag(make_aggregate: MakeAggregate) -> None:
    rule = ThresholdRule(name="slow", metric="latency_ms.p95", above=300, min_samples=100)
    aggregate = make_aggregate(
        requests=5,
        method="sketch",
        relative_error=0.01084,
        previous={"requests": 0},
        thresholds=(ThresholdState(rule=rule, current=None, breached=None),),
        lag_s=90.0,
    )
    assert limitations(read_facts(aggregate, "1h")) == [
        "Latency percentiles are estimates: relative error at most 1.08%.",
        "Fewer than 30 requests in this window: the figures say little.",
        "There are no earlier requests to compare with.",
        "Drift is unavailable, so it was not checked.",
        "Thresholds without enough samples: 1.",
        "Ingestion is delayed by 0:01:30: the newest predictions are missing.",
    ]


def test_exact_and_complete_hour__has_no_limitations(
    make_aggregate: MakeAggregate, make_drift: Callable[..., DriftReport]
) -> None:
    assert limitations(read_facts(make_aggregate(), "1h", make_drift())) == []


def test_window_of_the_past__is_said_to_be_without_thresholds(
    make_aggregate: MakeAggregate, make_drift: Callable[..., DriftReport]
) -> None:
    rule = ThresholdRule(name="slow", metric="latency_ms.p95", above=300)
    state = ThresholdState(rule=rule, current=420.0, breached=True)
    found = limitations(read_facts(make_aggregate(thresholds=(state,)), None, make_drift(), is_past=True))
    assert found == ["Thresholds are evaluated up to now, not for a past window: 1 left out."]
    assert limitations(read_facts(make_aggregate(), None, make_drift(), is_past=True)) == []


@pytest.mark.parametrize(
    ("metric", "current", "method", "expected"),
    [
        ("latency_ms.p95", 281.0, "exact", ["Latency percentiles compared with thresholds are estimates"]),
        ("latency_ms.p95", 281.0, "sketch", ["Latency percentiles are estimates"]),
        ("latency_ms.p95", None, "exact", []),
        ("latency_ms.max", 281.0, "exact", []),
    ],
)
def test_percentiles_held_against_thresholds__are_said_to_be_estimates(
    make_aggregate: MakeAggregate,
    make_drift: Callable[..., DriftReport],
    metric: MetricName,
    current: float | None,
    method: str,
    expected: list[str],
) -> None:
    rule = ThresholdRule(name="slow", metric=metric, above=300)
    aggregate = make_aggregate(
        method=method,
        relative_error=SKETCH_RELATIVE_ERROR if method == "sketch" else 0.0,
        thresholds=(ThresholdState(rule=rule, current=current, breached=False),),
    )
    found = limitations(read_facts(aggregate, "1h", make_drift()))
    assert found == [f"{sentence}: relative error at most 1.08%." for sentence in expected]


@pytest.mark.parametrize(("n", "is_judged"), [(0, False), (99, False), (100, True)])
def test_drift_of_few__is_said_not_to_be_judged(
    make_aggregate: MakeAggregate, make_drift: Callable[..., DriftReport], n: int, is_judged: bool
) -> None:
    facts = read_facts(make_aggregate(), "1h", make_drift(n, labels=0.5))
    assert [observation.kind for observation in run_checks(facts)].count("drift") == is_judged
    few = "Fewer than 100 predictions here or in the reference: drift is not evaluated."
    assert (few in limitations(facts)) == (not is_judged)

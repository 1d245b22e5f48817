from collections.abc import Callable
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyst.facts.fact import NAMES
from analyst.facts.facts import figure, read_facts
from analyst.report.models import Figure
from common.contracts.aggregates import SKETCH_RELATIVE_ERROR, Aggregate, DriftReport, LabelShare
from common.contracts.thresholds import DriftName, FilteredName, MetricName, ThresholdRule, ThresholdState

MakeAggregate = Callable[..., Aggregate]


def _ranked(*ranks: int) -> list[tuple[str, str]]:
    return [(f"label-{rank}", f"label-{rank}") for rank in ranks]


def test_every_metric_of_the_contract__is_a_fact(make_aggregate: MakeAggregate) -> None:
    names = set(get_args(MetricName))
    assert set(NAMES) == names | {*get_args(DriftName), *get_args(FilteredName)}  # these are known to rules only
    assert names <= read_facts(make_aggregate(), "1h").by_id.keys()


def test_values__are_the_aggregates_own(troubled: Aggregate) -> None:
    facts = read_facts(troubled, "1h")
    assert facts["latency_ms.p95"].current == troubled.latency_ms.p95
    assert facts["latency_ms.p95"].previous == troubled.previous.latency_ms.p95
    assert facts["error_rate"].current == troubled.error_rate
    assert facts["errors.timeout"].current == troubled.errors["timeout"]
    assert facts["errors.unavailable"].previous == 0
    assert facts["rule.p95-slow"].threshold == 300


def test_deltas__are_current_minus_previous(troubled: Aggregate) -> None:
    p95 = read_facts(troubled, "1h")["latency_ms.p95"]
    absolute, percent = p95.read("delta_abs"), p95.read("delta_pct")
    assert absolute is not None
    assert percent is not None
    assert absolute.value == pytest.approx(132.0)
    assert percent.value == pytest.approx(132 / 280 * 100)
    assert (absolute.unit, percent.unit) == ("ms", "percent")


@pytest.mark.parametrize("reading", ["delta_abs", "delta_pct"])
def test_change_smaller_than_its_error__is_no_fact(make_aggregate: MakeAggregate, reading: Any) -> None:
    within = make_aggregate(p95=285.0, method="sketch", relative_error=0.01)
    beyond = make_aggregate(p95=300.0, method="sketch", relative_error=0.01)
    assert read_facts(within, "1h")["latency_ms.p95"].read(reading) is None
    assert read_facts(beyond, "1h")["latency_ms.p95"].read(reading) is not None


def test_one_window_sketched__makes_the_comparison_a_sketch(make_aggregate: MakeAggregate) -> None:
    aggregate = make_aggregate(p95=400.0, previous={"method": "sketch", "relative_error": 0.01})
    delta = read_facts(aggregate, "1h")["latency_ms.p95"].read("delta_pct")
    assert delta is not None
    assert delta.method == "sketch"
    assert delta.rel_error > 0.01


@given(
    current=st.floats(1, 1e4),
    previous=st.floats(1, 1e4),
    error=st.floats(0.0001, 0.05),
    signs=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
)
def test_stated_error_of_a_change__bounds_the_true_one(
    current: float, previous: float, error: float, signs: tuple[float, float], make_aggregate: MakeAggregate
) -> None:
    aggregate = make_aggregate(
        p95=current * (1 + signs[0] * error),
        method="sketch",
        relative_error=error,
        previous={"p95": previous * (1 + signs[1] * error)},
    )
    fact = read_facts(aggregate, "1h")["latency_ms.p95"]
    for reading, true in (("delta_abs", current - previous), ("delta_pct", (current / previous - 1) * 100)):
        stated = fact.read(reading)  # type: ignore[arg-type]  # both are readings
        if stated is not None:
            assert abs(stated.value - true) <= stated.rel_error * abs(stated.value) * (1 + 1e-6) + 1e-6


def test_no_previous_window__means_no_change_to_tell(make_aggregate: MakeAggregate) -> None:
    facts = read_facts(make_aggregate(previous={"error_rate": None, "p95": None, "requests": 0}), "1h")
    assert facts["error_rate"].read("delta_abs") is None
    assert facts["latency_ms.p95"].direction == 0
    assert facts["requests"].read("delta_pct") is None
    assert facts["requests"].read("delta_abs") is not None


def test_tail_ratio__is_p99_over_median(make_aggregate: MakeAggregate) -> None:
    fact = read_facts(make_aggregate(p50=40.0, p99=600.0), "1h")["latency_ms.tail_ratio"]
    assert fact.current == 15.0
    assert read_facts(make_aggregate(p50=0.0), "1h")["latency_ms.tail_ratio"].current is None


def test_answered_and_limited_requests__are_not_errors(make_aggregate: MakeAggregate) -> None:
    facts = read_facts(make_aggregate(errors={"ok": 5, "limited": 7, "timeout": 1}), "1h")
    assert [fact.id for fact in facts.errors] == ["errors.timeout"]


def test_window_of_the_past__has_no_thresholds_for_they_are_judged_up_to_now(troubled: Aggregate) -> None:
    facts = read_facts(troubled, None, is_past=True)
    assert (facts.rules, facts.breached, facts.skipped_rules) == ([], [], 2)
    assert read_facts(troubled, None).skipped_rules == 0


def test_figure__carries_unit_method_error_and_n(make_aggregate: MakeAggregate) -> None:
    facts = read_facts(make_aggregate(method="sketch", relative_error=0.01), "1h")
    shown = figure("e1", facts["latency_ms.p95"], "current")
    assert shown is not None
    assert (shown.value, shown.unit, shown.method, shown.rel_error, shown.n) == (280.0, "ms", "sketch", 0.01, 36_000)


def test_figure_of_a_rule__tells_no_n(make_aggregate: MakeAggregate) -> None:
    rule = ThresholdRule(name="slow", metric="latency_ms.p95", above=300)
    state = ThresholdState(rule=rule, current=420.0, breached=True)
    facts = read_facts(make_aggregate(thresholds=(state,)), "1h")
    for reading in ("current", "threshold"):
        shown = figure("e1", facts["rule.slow"], reading)
        assert shown is not None
        assert shown.n is None


@pytest.mark.parametrize("metric", get_args(MetricName))
@pytest.mark.parametrize("window_is", ["exact", "sketch"])
def test_figure_of_a_rule__is_an_estimate_for_percentiles_only_whatever_the_report_is(
    make_aggregate: MakeAggregate, metric: MetricName, window_is: str
) -> None:
    rule = ThresholdRule(name="r", metric=metric, above=300)
    state = ThresholdState(rule=rule, current=420.0, breached=True)
    error = 0.02 if window_is == "sketch" else 0.0
    facts = read_facts(make_aggregate(thresholds=(state,), method=window_is, relative_error=error), "5m")
    shown = figure("e1", facts["rule.r"], "current")
    assert shown is not None
    is_percentile = metric.startswith("latency_ms.p")
    assert (shown.method, shown.rel_error) == (("sketch", SKETCH_RELATIVE_ERROR) if is_percentile else ("exact", 0.0))


@pytest.mark.parametrize("metric", ["latency_ms.mean", "latency_ms.max", "error_rate"])
def test_figure_that_no_histogram_stands_behind__is_exact_beside_estimates(
    make_aggregate: MakeAggregate, metric: str
) -> None:
    shown = figure("e1", read_facts(make_aggregate(method="sketch", relative_error=0.01), "1h")[metric], "current")
    assert shown is not None
    assert (shown.method, shown.rel_error) == ("exact", 0.0)


def test_label_shares__are_facts_of_the_ten_most_frequent_labels(make_aggregate: MakeAggregate) -> None:
    labels = [LabelShare(label=f"L{n}", count=100 - n, share=0.1) for n in range(12)]
    odd = LabelShare(label="very good", count=500, share=0.5)
    facts = read_facts(make_aggregate(labels=[*labels, odd]), "1h")
    assert [fact.id for fact in facts.labels] == [
        f"label_share.{name}" for name in ("label-1", *(f"l{n}" for n in range(9)))
    ]
    (value,) = [facts["label_share.l0"].read("current")]
    assert value is not None
    assert value.value == 100 / (sum(100 - n for n in range(12)) + 500)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["POSITIVE", "5 stars", "1 star"], [("positive", "POSITIVE"), *_ranked(2, 3)]),
        (["très positif", "negative", ""], [*_ranked(1), ("negative", "negative"), *_ranked(3)]),
        (["Good", "good"], [("good", "Good"), ("good-", "good-")]),
        (["very good", "label-1"], [("label-1", "label-1"), ("label-1-", "label-1-")]),
        (["label-2", 'say "{e1}"', "x" * 65], [("label-2", "label-2"), ("label-2-", "label-2-"), *_ranked(3)]),
    ],
)
def test_label_that_is_more_than_a_word__goes_by_its_rank_and_counts(
    make_aggregate: MakeAggregate, labels: list[str], expected: list[tuple[str, str]]
) -> None:
    shares = [LabelShare(label=label, count=100 - place, share=0.1) for place, label in enumerate(labels)]
    facts = read_facts(make_aggregate(labels=shares), "1h")
    assert [(fact.id, fact.label) for fact in facts.labels] == [
        (f"label_share.{name}", text) for name, text in expected
    ]
    assert [fact.current for fact in facts.labels] == [share.count / sum(s.count for s in shares) for share in shares]


def test_label_that_is_new__had_no_share_before(make_aggregate: MakeAggregate) -> None:
    now = [LabelShare(label="new", count=50, share=1.0)]
    facts = read_facts(
        make_aggregate(labels=now, previous={"labels": [LabelShare(label="old", count=50, share=1.0)]}), "1h"
    )
    new, old = facts["label_share.new"], facts["label_share.old"]
    assert (new.previous, new.current, old.previous, old.current) == (0.0, 1.0, 1.0, 0.0)


def test_drift__is_a_fact_without_a_previous_value(
    make_aggregate: MakeAggregate, make_drift: Callable[..., DriftReport]
) -> None:
    report = make_drift(labels=0.3)
    facts = read_facts(make_aggregate(), "1h", report)
    assert facts.reference == report.reference
    assert figure("e1", facts["drift.labels"], "current") == Figure(
        id="e1", metric="drift.labels", window="current", value=0.3, unit="score", method="exact", rel_error=0, n=36_000
    )
    assert figure("e1", facts["drift.labels"], "delta_abs") is None
    assert facts["drift.labels"].direction == 0


def test_drift_not_told__is_no_fact(make_aggregate: MakeAggregate) -> None:
    facts = read_facts(make_aggregate(), "1h")
    assert (facts.reference, facts.drifts) == (None, [])

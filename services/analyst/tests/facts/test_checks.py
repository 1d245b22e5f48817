from collections.abc import Callable
from typing import Any

import pytest

from analyst.facts.checks import Observation, run_checks, status_of
from analyst.facts.facts import read_facts
from analyst.report.models import Category, Severity, Status
from common.contracts.aggregates import Aggregate, DriftReport, LabelShare
from common.contracts.thresholds import RuleMetric, ThresholdRule, ThresholdState

MakeAggregate = Callable[..., Aggregate]


def _checked(aggregate: Aggregate) -> tuple[list[Observation], Status]:
    facts = read_facts(aggregate, "1h")
    observations = run_checks(facts)
    return observations, status_of(facts, observations)


def _kinds(aggregate: Aggregate) -> list[tuple[str, str, Severity]]:
    return [(item.kind, item.fact.id, item.severity) for item in _checked(aggregate)[0] if item.kind != "tail"]


def _breached(severity: Severity) -> tuple[ThresholdState, ...]:
    rule = ThresholdRule(name="slow", metric="latency_ms.p95", above=300, severity=severity)
    return (ThresholdState(rule=rule, current=420.0, breached=True),)


def test_calm_hour__is_healthy_without_findings(make_aggregate: MakeAggregate) -> None:
    assert _checked(make_aggregate(p99=100.0)) == ([], "healthy")


@pytest.mark.parametrize(
    ("severity", "status"), [("critical", "critical"), ("warning", "degraded"), ("info", "healthy")]
)
def test_breach__sets_the_status_by_its_severity(
    make_aggregate: MakeAggregate, severity: Severity, status: Status
) -> None:
    aggregate = make_aggregate(thresholds=_breached(severity))
    assert _kinds(aggregate) == [("breach", "rule.slow", severity)]
    assert _checked(aggregate)[1] == status


def test_threshold_without_enough_samples__is_no_breach(make_aggregate: MakeAggregate) -> None:
    rule = ThresholdRule(name="slow", metric="latency_ms.p95", above=300)
    assert _kinds(make_aggregate(thresholds=(ThresholdState(rule=rule, current=None, breached=None),))) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"p95": 280 * 1.25}, [("latency_change", "latency_ms.p95", "warning")]),
        ({"p95": 280 * 1.24}, []),
        ({"p95": 280 * 0.75}, [("latency_change", "latency_ms.p95", "info")]),
        ({"p50": 60.0}, [("latency_change", "latency_ms.p50", "warning")]),
        ({"p95": 400.0, "p50": 60.0}, [("latency_change", "latency_ms.p95", "warning")]),
        ({"error_rate": 0.01}, [("rate_change", "error_rate", "warning")]),
        ({"error_rate": 0.009}, []),
        ({"previous": {"error_rate": 0.01}}, [("rate_change", "error_rate", "info")]),
        ({"limited_rate": 0.05}, [("rate_change", "limited_rate", "info")]),
        ({"limited_rate": 0.049}, []),
        ({"requests": 18_000}, [("volume_change", "requests", "warning")]),
        ({"requests": 54_000}, [("volume_change", "requests", "info")]),
        ({"requests": 53_999}, []),
        ({"errors": {"timeout": 360}}, [("error_class", "errors.timeout", "warning")]),
        ({"errors": {"timeout": 1799}}, [("error_class", "errors.timeout", "warning")]),
        ({"errors": {"timeout": 1800}}, [("error_class", "errors.timeout", "critical")]),
        ({"errors": {"timeout": 359}}, []),
    ],
)
def test_change__is_noticed_from_its_limit_on(
    make_aggregate: MakeAggregate, changes: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    assert _kinds(make_aggregate(**changes)) == expected


CHANGES = {"latency_change", "rate_change", "tail", "confidence_change", "drift"}


@pytest.mark.parametrize(("n", "found"), [(99, set()), (100, CHANGES)])
def test_change__is_a_finding_where_both_windows_have_a_hundred_requests(
    make_aggregate: MakeAggregate, make_drift: Callable[..., DriftReport], n: int, found: set[str]
) -> None:
    few: dict[str, Any] = {"n": n, "requests": n, "predictions": n}
    changed = make_aggregate(p95=900.0, error_rate=0.5, limited_rate=0.5, confidence=0.99, **few, previous=few)
    observations = run_checks(read_facts(changed, "1h", make_drift(n, labels=0.5)))
    assert {item.kind for item in observations} == found


def test_change_smaller_than_its_own_error__is_no_finding(make_aggregate: MakeAggregate) -> None:
    estimated: dict[str, Any] = {"method": "sketch", "relative_error": 0.2}
    assert _kinds(make_aggregate(p95=280 * 1.3, **estimated, previous=estimated)) == []


@pytest.mark.parametrize(("n", "found"), [(99, []), (100, [("volume_change", "requests", "info")])])
def test_growth__is_a_finding_once_there_are_a_hundred_requests(
    make_aggregate: MakeAggregate, n: int, found: list[tuple[str, str, str]]
) -> None:
    assert _kinds(make_aggregate(requests=n, n=n, previous={"requests": 10, "n": 10})) == found


def test_long_tail__is_worth_a_word_and_no_alarm(make_aggregate: MakeAggregate) -> None:
    observations, status = _checked(make_aggregate(p50=40.0, p99=200.0))
    assert [item.kind for item in observations] == ["tail"]
    assert status == "healthy"


def test_tail_below_its_limit__is_not_worth_a_word(make_aggregate: MakeAggregate) -> None:
    assert _checked(make_aggregate(p50=40.0, p99=199.0)) == ([], "healthy")


@pytest.mark.parametrize(
    ("metric", "category"),
    [("latency_ms.p95", "latency"), ("error_rate", "errors"), ("drift.labels", "data"), ("limited_rate", "traffic")],
)
def test_breach__is_filed_under_what_its_metric_speaks_of(
    make_aggregate: MakeAggregate, metric: RuleMetric, category: Category
) -> None:
    state = ThresholdState(rule=ThresholdRule(name="high", metric=metric, above=0.0), current=420.0, breached=True)
    assert [item.category for item in _checked(make_aggregate(thresholds=(state,)))[0] if item.kind == "breach"] == [
        category
    ]


def test_too_few_requests__are_insufficient_data_unless_something_is_wrong(make_aggregate: MakeAggregate) -> None:
    few: dict[str, Any] = {"n": 29, "requests": 29, "previous": {"n": 29, "requests": 29}}
    assert _checked(make_aggregate(**few))[1] == "insufficient_data"
    assert _checked(make_aggregate(**few, thresholds=_breached("critical")))[1] == "critical"
    assert _checked(make_aggregate(**few | {"n": 30, "requests": 30}))[1] == "healthy"


@pytest.mark.parametrize(("n", "found"), [(29, []), (30, ["error_class"])])
def test_kind_of_error__is_a_finding_once_thirty_requests_were_not_limited(
    make_aggregate: MakeAggregate, n: int, found: list[str]
) -> None:
    few: dict[str, Any] = {"n": n, "requests": n + 40, "rate_limited": 40, "previous": {"n": n, "requests": n}}
    assert [item.kind for item in _checked(make_aggregate(errors={"timeout": 9}, **few))[0]] == found


NOTHING: dict[str, Any] = {"n": 0, "requests": 0, "predictions": 0, "error_rate": None, "limited_rate": None}
NOTHING |= dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max", "confidence"))


def test_no_traffic_at_all__is_insufficient_data(make_aggregate: MakeAggregate) -> None:
    assert _checked(make_aggregate(**NOTHING, previous=NOTHING)) == ([], "insufficient_data")


def test_first_traffic__has_nothing_to_be_compared_with(make_aggregate: MakeAggregate) -> None:
    assert _checked(make_aggregate(p99=100.0, previous=NOTHING)) == ([], "healthy")


def test_traffic_that_ended_with_errors__is_a_change_of_volume_alone(make_aggregate: MakeAggregate) -> None:
    aggregate = make_aggregate(**NOTHING, previous={"errors": {"timeout": 9}})
    assert _kinds(aggregate) == [("volume_change", "requests", "warning")]


def test_worst_finding__comes_first(make_aggregate: MakeAggregate) -> None:
    aggregate = make_aggregate(p95=200.0, requests=10_000, errors={"timeout": 1000}, thresholds=_breached("warning"))
    severities = [item.severity for item in _checked(aggregate)[0]]
    assert severities == sorted(severities, key=["critical", "warning", "info"].index)


# ---- drift


def _shares(**counts: int) -> list[LabelShare]:
    return [LabelShare(label=label, count=n, share=n / sum(counts.values())) for label, n in counts.items()]


@pytest.mark.parametrize(
    ("positive", "found"), [(550, []), (590, []), (610, ["info"]), (390, ["info"]), (740, ["info"]), (760, ["warning"])]
)
def test_label_mix__is_compared_with_the_window_before(
    make_aggregate: MakeAggregate, positive: int, found: list[str]
) -> None:
    now, before = _shares(positive=positive, negative=1000 - positive), _shares(positive=500, negative=500)
    observations = run_checks(read_facts(make_aggregate(labels=now, previous={"labels": before}), "1h"))
    assert [each.severity for each in observations if each.kind == "label_shift"] == found


@pytest.mark.parametrize(("one", "other"), [("5 stars", "1 star"), ("très positif", "négatif"), ("👍", "👎")])
def test_label_mix__is_compared_whatever_the_labels_are(make_aggregate: MakeAggregate, one: str, other: str) -> None:
    now, before = _shares(**{one: 900, other: 100}), _shares(**{one: 100, other: 900})
    observations = run_checks(read_facts(make_aggregate(labels=now, previous={"labels": before}), "1h"))
    assert [each.severity for each in observations if each.kind == "label_shift"] == ["warning"]


def test_label_mix_of_few__says_nothing(make_aggregate: MakeAggregate) -> None:
    aggregate = make_aggregate(labels=_shares(positive=90), previous={"labels": _shares(negative=90)})
    assert "label_shift" not in {observation.kind for observation in run_checks(read_facts(aggregate, "1h"))}


@pytest.mark.parametrize(("now", "found"), [(0.9, []), (0.86, []), (0.84, ["warning"]), (0.96, ["info"])])
def test_confidence__is_compared_with_the_window_before(
    make_aggregate: MakeAggregate, now: float, found: list[str]
) -> None:
    observations = run_checks(read_facts(make_aggregate(confidence=now), "1h"))
    assert [each.severity for each in observations if each.kind == "confidence_change"] == found


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        ({"labels": 0.1}, [("drift", "drift.labels", "info")]),
        ({"labels": 0.0999}, []),
        ({"length": 0.2499}, [("drift", "drift.length", "info")]),
        ({"length": 0.25}, [("drift", "drift.length", "warning")]),
        (
            {"labels": 0.2, "confidence": 0.5},
            [("drift", "drift.confidence", "warning"), ("drift", "drift.labels", "info")],
        ),
    ],
)
def test_drift__is_judged_by_what_the_metrics_service_measured(
    make_aggregate: MakeAggregate,
    make_drift: Callable[..., DriftReport],
    moved: dict[str, float],
    expected: list[tuple[str, str, str]],
) -> None:
    observations = run_checks(read_facts(make_aggregate(), "1h", make_drift(**moved)))
    assert [(item.kind, item.fact.id, item.severity) for item in observations if item.kind != "tail"] == expected

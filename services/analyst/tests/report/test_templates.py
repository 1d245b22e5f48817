import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyst.facts.checks import run_checks, status_of
from analyst.facts.fact import NAMES
from analyst.facts.facts import read_facts
from analyst.grounding.grounding import check_draft
from analyst.report.models import Draft, Figure, Status
from analyst.report.rendering import Rendered, render, show
from analyst.report.templates import draft_by_rules
from common.contracts.aggregates import Aggregate, Confidence, Drift, DriftReport, LabelShare, Latency, Summary
from common.contracts.base import TimeRange, Window
from common.contracts.events import Outcome
from common.contracts.thresholds import DriftName, MetricName, ThresholdRule, ThresholdState

MakeAggregate = Callable[..., Aggregate]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SHARES = st.none() | st.floats(0, 1)
LABELS = st.sampled_from(
    ["POSITIVE", "down", "worse", "healthy", "five", "requests", "two words", 'a"b', "naïve", "\U0001f44d", "чай"]
)
MILLISECONDS = st.none() | st.floats(0, 1e5)


@st.composite
def summaries(draw: st.DrawFn) -> dict[str, Any]:
    requests = draw(st.integers(0, 1_000_000) | st.integers(0, 200))
    limited = draw(st.integers(0, requests))
    sketched = draw(st.booleans())
    errors = draw(st.dictionaries(st.sampled_from(get_args(Outcome)), st.integers(0, requests), max_size=4))
    return {
        "range": TimeRange(start=NOON - timedelta(hours=1), end=NOON),
        "requests": requests,
        "predictions": draw(st.integers(0, requests)),
        "rate_limited": limited,
        "errors": errors,
        "throughput_per_s": requests / 3600,
        "error_rate": draw(SHARES),
        "limited_rate": limited / requests if requests else None,
        "latency_ms": Latency(
            n=draw(st.integers(0, requests)),
            **{name: draw(MILLISECONDS) for name in ("mean", "p50", "p90", "p95", "p99", "max")},
            method="sketch" if sketched else "exact",
            relative_error=0.01084 if sketched else 0.0,
        ),
        "labels": [
            LabelShare(label=label, count=count, share=0.5)
            for label, count in draw(st.dictionaries(LABELS, st.integers(0, 10_000), max_size=4)).items()
        ],
        "confidence": Confidence(mean=draw(SHARES), histogram=draw(st.lists(st.integers(0, 99), max_size=10))),
    }


@st.composite
def rule_states(draw: st.DrawFn) -> ThresholdState:
    is_above = draw(st.booleans())
    limit = draw(st.floats(0, 1e4))
    rule = ThresholdRule(
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True)),
        metric=draw(st.sampled_from(get_args(MetricName) + get_args(DriftName))),
        above=limit if is_above else None,
        below=None if is_above else limit,
        window=draw(st.sampled_from(get_args(Window))),
        severity=draw(st.sampled_from(["info", "warning", "critical"])),
    )
    current = draw(st.none() | st.floats(0, 1e4))
    breached = None if current is None else (current > limit if is_above else current < limit)
    return ThresholdState(rule=rule, current=current, breached=breached)


@st.composite
def aggregates(draw: st.DrawFn) -> Aggregate:
    states = draw(st.lists(rule_states(), max_size=4, unique_by=lambda state: state.rule.name))
    return Aggregate(
        **draw(summaries()), previous=Summary(**draw(summaries())), thresholds=states, lag_s=draw(st.floats(0, 1e4))
    )


@st.composite
def drift_reports(draw: st.DrawFn) -> DriftReport:
    n, reference_n = st.integers(0, 1000), st.integers(0, 1000)
    drifts = {
        name: Drift(n=draw(n), reference_n=draw(reference_n), value=draw(st.none() | st.floats(0, 10)))
        for name in ("labels", "confidence", "length")
    }
    hour = TimeRange(start=NOON - timedelta(hours=1), end=NOON)
    return DriftReport(range=hour, reference=hour, lag_s=None, **drifts)


def _written(aggregate: Aggregate, drift: DriftReport | None = None) -> tuple[Draft, Status, Rendered]:
    facts = read_facts(aggregate, "1h", drift)
    observations = run_checks(facts)
    status = status_of(facts, observations)
    draft = draft_by_rules(facts, observations, status)
    return draft, status, render(draft, facts)


@settings(max_examples=100, deadline=None)
@given(aggregate=aggregates(), drift=st.none() | drift_reports())
def test_every_rules_draft__passes_the_checker_of_model_drafts(aggregate: Aggregate, drift: DriftReport | None) -> None:
    draft, status, _ = _written(aggregate, drift)
    assert check_draft(draft, read_facts(aggregate, "1h", drift), status) == []


@settings(max_examples=100, deadline=None)
@given(aggregate=aggregates(), drift=drift_reports())
def test_every_figure__equals_the_metrics_services_value(aggregate: Aggregate, drift: DriftReport) -> None:
    _, _, rendered = _written(aggregate, drift)
    for figure in rendered.figures:
        group, _, name = figure.metric.partition(".")
        assert figure.value == (getattr(drift, name).value if group == "drift" else _looked_up(aggregate, figure))


@settings(max_examples=100, deadline=None)
@given(aggregate=aggregates(), drift=drift_reports())
def test_prose__holds_no_number_but_rendered_figures_and_names(aggregate: Aggregate, drift: DriftReport) -> None:
    _, _, rendered = _written(aggregate, drift)
    known = [show(figure, signed=signed) for figure in rendered.figures for signed in (True, False)]
    names = [name for name, _, _ in NAMES.values()] + [f"last {window}" for window in get_args(Window)]
    names += [f'"label-{rank}"' for rank in range(1, 11)]
    texts = [rendered.summary, *(f"{item.title} {item.detail}" for item in rendered.findings)]
    texts += [f"{item.action} {item.rationale}" for item in rendered.recommendations]
    for text in texts:
        for known_text in sorted(known + names, key=len, reverse=True):
            text = text.replace(known_text, "")
        assert re.search(r"\d", text) is None


def test_troubled_hour__is_told_in_full(troubled: Aggregate) -> None:
    _, status, rendered = _written(troubled)
    assert status == "critical"
    assert rendered.summary == (
        "The service is critical: see the findings. "
        "Requests in the window: 36,000. The error rate is 0.4%. The p95 latency is 412 ms."
    )
    assert [finding.detail for finding in rendered.findings] == [
        "Over the last 5m the p95 latency is 420 ms, above its limit of 300 ms.",
        "The p95 latency rose by 47.14%, from 280 ms to 412 ms.",
        "The tail-to-median ratio is 22.5×.",
    ]
    assert all(item.evidence for item in rendered.findings)
    assert all(item.evidence for item in rendered.recommendations)


def test_calm_hour__is_told_without_findings(make_aggregate: MakeAggregate) -> None:
    draft, status, _ = _written(make_aggregate(p99=100.0))
    assert (status, draft.findings, draft.recommendations) == ("healthy", [], [])


def test_findings_that_only_inform__are_not_called_nothing(make_aggregate: MakeAggregate) -> None:
    _, status, rendered = _written(make_aggregate(p99=900.0))
    assert (status, [finding.title for finding in rendered.findings]) == ("healthy", ["The latency tail is long"])
    assert rendered.summary.startswith("The service is healthy: the findings are for information.")


def test_breach_that_only_informs__is_told_where_the_service_is_called_healthy(make_aggregate: MakeAggregate) -> None:
    rule = ThresholdRule(name="limited", metric="limited_rate", above=0.5, severity="info")
    _, status, rendered = _written(make_aggregate(thresholds=(ThresholdState(rule=rule, current=0.8, breached=True),)))
    assert status == "healthy"
    assert rendered.summary.startswith("The service is healthy, but a threshold is breached: see the findings.")


def _looked_up(aggregate: Aggregate, figure: Figure) -> float:
    """The same number, read from the aggregate by another way than the code's."""
    if figure.metric.startswith("rule."):
        (state,) = (s for s in aggregate.thresholds if f"rule.{s.rule.name}" == figure.metric)
        limit = state.rule.above if state.rule.above is not None else state.rule.below
        value = state.current if figure.window == "current" else limit
        assert value is not None
        return value
    metric = _spelt_out(aggregate, figure.metric)
    now, before = _at(aggregate, metric), _at(aggregate.previous, metric)
    match figure.window:
        case "current":
            return now
        case "previous":
            return before
        case "delta_abs":
            return now - before
        case _:
            return (now / before - 1) * 100


def _spelt_out(aggregate: Aggregate, metric: str) -> str:
    """With the label as the metrics service has it."""
    group, _, name = metric.partition(".")
    if group != "label_share":
        return metric
    counts = {share.label: 0 for share in aggregate.previous.labels if share.count}
    counts |= {share.label: share.count for share in aggregate.labels if share.count}
    rank = name.removeprefix("label-")
    if rank == name:
        (label,) = (label for label in counts if label.lower() == name)
    else:
        label = sorted(counts, key=lambda label: (-counts[label], label))[int(rank) - 1]
    return f"{group}.{label}"


def _at(summary: Summary, metric: str) -> float:
    document: Any = summary.model_dump()
    latency = document["latency_ms"]
    latency["tail_ratio"] = latency["p99"] / latency["p50"] if latency["p50"] and latency["p99"] is not None else None
    if metric.startswith("label_share."):
        counts = {share.label: share.count for share in summary.labels}
        return counts.get(metric.partition(".")[2], 0) / sum(counts.values())
    for part in metric.split("."):
        document = document.get(part, 0)
    return document  # type: ignore[no-any-return]  # a number, by the contract


@pytest.mark.parametrize("metric", get_args(DriftName))
def test_breached_drift_rule__is_written_and_passes_the_checker(
    make_aggregate: MakeAggregate, metric: DriftName
) -> None:
    rule = ThresholdRule(name="moved", metric=metric, above=0.1, window="1h", reference="24h")
    facts = read_facts(make_aggregate(thresholds=(ThresholdState(rule=rule, current=0.4, breached=True),)), "1h")
    observations = run_checks(facts)
    status = status_of(facts, observations)
    draft = draft_by_rules(facts, observations, status)
    assert check_draft(draft, facts, status) == []
    (finding,) = [finding for finding in draft.findings if "threshold" in finding.title]
    assert (finding.category, status) == ("data", "degraded")


def test_drift__is_told_with_its_figure(make_aggregate: MakeAggregate, make_drift: Callable[..., DriftReport]) -> None:
    _, status, rendered = _written(make_aggregate(p99=100.0), make_drift(labels=0.31))
    (finding,) = rendered.findings
    assert (finding.title, finding.detail) == ("There is label drift", "Against the reference the label drift is 0.31.")
    assert (finding.severity, finding.category, status) == ("warning", "data", "degraded")
    assert rendered.figures[-1].metric == "drift.labels"


def test_more_breached_limits_than_a_report_lists__are_told_of_the_worst_first(make_aggregate: MakeAggregate) -> None:
    severities = ["warning"] * 99 + ["critical"]
    rules = [
        ThresholdRule.model_validate({"name": f"r{n}", "metric": "requests", "above": float(n), "severity": severity})
        for n, severity in enumerate(severities)
    ]
    states = tuple(ThresholdState(rule=rule, current=36_000.0, breached=True) for rule in rules)
    aggregate = make_aggregate(thresholds=states)
    draft, status, rendered = _written(aggregate)
    assert check_draft(draft, read_facts(aggregate, "1h"), status) == []
    assert (status, len(rendered.findings), rendered.findings[0].severity) == ("critical", 20, "critical")
    assert "There are more findings than this report lists." in rendered.summary


@pytest.mark.parametrize("metric", get_args(MetricName))
def test_limit_near_the_end_of_what_a_float_holds__is_told_too(
    make_aggregate: MakeAggregate, metric: MetricName
) -> None:
    rule = ThresholdRule(name="absurd", metric=metric, below=1e308)
    aggregate = make_aggregate(thresholds=(ThresholdState(rule=rule, current=0.5, breached=True),))
    draft, status, _ = _written(aggregate)
    assert check_draft(draft, read_facts(aggregate, "1h"), status) == []

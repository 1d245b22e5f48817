"""The alerts: one source for Compose and Kubernetes, a runbook each, and a test by promtool each."""

import re
from pathlib import Path
from typing import Any

import yaml
from prometheus_rule import prometheus_rule, with_runbooks

from edge_limiter.proxy.routes import ROUTES

ROOT = Path(__file__).parents[3]
ALERTS = ROOT / "deploy/compose/observability/alerts.yml"
CASES = ROOT / "tests/compose/alerts.test.yml"


def alerts() -> dict[str, Any]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_prometheus_rule__is_generated_from_the_alerts_of_compose() -> None:
    text = (ROOT / "deploy/k8s/components/monitoring/rules.yaml").read_text()
    assert text == prometheus_rule(ALERTS.read_text())
    assert yaml.safe_load(text)["spec"]["groups"] == yaml.safe_load(ALERTS.read_text())["groups"]


def test_runbooks__get_the_given_address() -> None:
    text = with_runbooks(ALERTS.read_text(), "https://git.example.com/runbooks.md")
    urls = re.findall(r"runbook_url: (.*)", text)
    assert urls == [f"https://git.example.com/runbooks.md#{name.lower()}" for name in alerts()]


def test_every_alert__has_a_prefix_a_severity_and_a_runbook() -> None:
    runbooks = (ROOT / "docs/operations/alerts.md").read_text()
    assert [f"## {name}" for name in alerts()] == re.findall(r"^## Sluice\w+$", runbooks, re.MULTILINE)
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        assert re.fullmatch(rf"https://\S+/alerts\.md#{name.lower()}", rule["annotations"]["runbook_url"]), name


def test_every_alert__has_a_case_that_fires_and_one_that_does_not() -> None:
    cases = yaml.safe_load(CASES.read_text())["tests"]
    seen = [(case["alertname"], bool(case.get("exp_alerts"))) for test in cases for case in test["alert_rule_test"]]
    assert set(seen) == {(name, fires) for name in alerts() for fires in (True, False)}


def test_every_alert__separates_installations() -> None:
    cases = yaml.safe_load(CASES.read_text())["tests"]
    [two] = [test for test in cases if test["name"].startswith("two installations")]
    fired = {case["alertname"]: case["exp_alerts"] for case in two["alert_rule_test"]}
    assert fired.keys() == alerts().keys()
    assert {alert["exp_labels"]["namespace"] for expected in fired.values() for alert in expected} == {"ill"}
    for name, rule in alerts().items():
        aggregated = re.findall(r"\b(?:sum|min|max|count|avg|group)\b(.{14})", rule["expr"])
        assert aggregated and set(aggregated) == {" by (namespace"}, name


def test_slow_predictions__cover_exactly_the_routes_that_score() -> None:
    routes = re.search(r'route=~"([^"]*)"', alerts()["SluicePredictionsSlow"]["expr"])
    assert routes is not None
    seen = {route.pattern for route in ROUTES if re.fullmatch(routes[1], route.pattern)}
    assert seen == {route.pattern for route in ROUTES if route.policy == "predict" and not route.prefix}

"""The alerts of Kubernetes are those of Compose, and each has a runbook."""

import re
from pathlib import Path
from typing import Any

import yaml
from written import Overlay

from edge_limiter.proxy.routes import ROUTES

ROOT = Path(__file__).parents[3]


def compose_groups() -> Any:
    return yaml.safe_load((ROOT / "deploy/compose/observability/alerts.yml").read_text())["groups"]


def test_rules__are_those_of_compose(overlay: Overlay) -> None:
    assert overlay["PrometheusRule/sluice"]["spec"]["groups"] == compose_groups()


def alerts() -> dict[str, Any]:
    return {rule["alert"]: rule for group in compose_groups() for rule in group["rules"]}


def test_every_alert__names_its_runbook() -> None:
    runbooks = (ROOT / "docs/operations/alerts.md").read_text()
    for name, rule in alerts().items():
        assert f"\n## {name}\n" in runbooks
        assert rule["annotations"]["runbook_url"] == f"docs/operations/alerts.md#{name.lower()}"


def test_every_alert__is_seen_to_fire_and_to_be_silent_by_promtool() -> None:
    cases = yaml.safe_load((ROOT / "tests/compose/alerts.test.yml").read_text())["tests"]
    seen = [(case["alertname"], bool(case.get("exp_alerts"))) for test in cases for case in test["alert_rule_test"]]
    assert set(seen) == {(name, fires) for name in alerts() for fires in (True, False)}


def test_every_alert__keeps_installations_apart() -> None:
    cases = yaml.safe_load((ROOT / "tests/compose/alerts.test.yml").read_text())["tests"]
    [two] = [test for test in cases if test["name"].startswith("two installations")]
    fired = {case["alertname"]: case["exp_alerts"] for case in two["alert_rule_test"]}
    assert fired.keys() == alerts().keys()
    assert {alert["exp_labels"]["namespace"] for expected in fired.values() for alert in expected} == {"ill"}
    for name, rule in alerts().items():
        aggregated = re.findall(r"\b(?:sum|min|max|count|avg|group)\b(.{14})", rule["expr"])
        assert aggregated and set(aggregated) == {" by (namespace"}, name


def test_slow_predictions__are_seen_on_every_route_that_scores_and_on_no_other() -> None:
    routes = re.search(r'route=~"([^"]*)"', alerts()["PredictionsSlow"]["expr"])
    assert routes is not None
    seen = {route.pattern for route in ROUTES if re.fullmatch(routes[1], route.pattern)}
    assert seen == {route.pattern for route in ROUTES if route.policy == "predict" and not route.prefix}

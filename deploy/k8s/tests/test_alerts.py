"""The alerts of Kubernetes are those of Compose, and each has a runbook."""

from pathlib import Path
from typing import Any

import yaml
from written import Overlay

ROOT = Path(__file__).parents[3]


def compose_groups() -> Any:
    return yaml.safe_load((ROOT / "deploy/compose/observability/alerts.yml").read_text())["groups"]


def test_rules__are_those_of_compose(overlay: Overlay) -> None:
    assert overlay["PrometheusRule/sluice"]["spec"]["groups"] == compose_groups()


def test_every_alert__has_a_runbook() -> None:
    runbooks = (ROOT / "docs/operations/alerts.md").read_text()
    alerts = [rule["alert"] for group in compose_groups() for rule in group["rules"]]
    assert [alert for alert in alerts if f"\n## {alert}\n" not in runbooks] == []

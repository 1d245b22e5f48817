"""Prometheus scrapes the running system, its alerts reach Alertmanager, and every dashboard panel has data."""

import asyncio
import json
import math
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from compose.stack import DEPLOY, SERVICES, Stack, docker

DASHBOARDS = sorted((DEPLOY / "observability" / "dashboards").glob("*.json"))
RULE_COUNT = (DEPLOY / "observability" / "alerts.yml").read_text().count("- alert:")
TIMEOUT_S = 180


@pytest.fixture
def prometheus(stack: Stack) -> str:
    """Start Prometheus and Alertmanager, and return the container of Prometheus."""
    stack.compose("--profile", "observability", "up", "--detach", "--no-recreate", "prometheus", "alertmanager")
    (container,) = stack.containers("prometheus")
    return container


def ask(stack: Stack, path: str) -> Any:
    """Query the API of Prometheus from inside, since it publishes no port."""
    url = f"http://prometheus:9090/api/v1/{path}"
    code = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=5).read().decode())"
    return json.loads(stack.python(stack.containers("edge")[0], code))["data"]


def values(stack: Stack, expression: str) -> list[float]:
    chosen = expression.replace("$__rate_interval", "1m").replace("$namespace", ".*")
    found = ask(stack, f"query?query={quote(chosen)}")["result"]
    return [value for value in (float(series["value"][1]) for series in found) if not math.isnan(value)]


def expressions() -> list[str]:
    boards = [json.loads(path.read_text()) for path in DASHBOARDS]
    return [target["expr"] for board in boards for panel in board["panels"] for target in panel["targets"]]


async def use(stack: Stack) -> None:
    """Send one request of each kind."""
    async with aiohttp.ClientSession(stack.urls[0], headers={"X-Forwarded-For": "198.51.100.90"}) as session:
        for path, body in (
            ("/predict", {"text": f"lovely {uuid.uuid4()}"}),
            ("/analyze/performance", {"window": "1h"}),
        ):
            async with session.post(path, json=body) as response:
                assert response.status == 200


async def test_prometheus__scrapes_all_services_and_every_dashboard_query_has_data(
    stack: Stack, prometheus: str, say: Callable[[str], None]
) -> None:
    without_data = expressions()
    deadline = asyncio.get_running_loop().time() + TIMEOUT_S
    while without_data and asyncio.get_running_loop().time() < deadline:
        await use(stack)
        await asyncio.sleep(2)
        without_data = [expression for expression in without_data if not values(stack, expression)]
    assert without_data == []
    targets = ask(stack, "targets")["activeTargets"]
    assert sorted(target["labels"]["job"] for target in targets if target["health"] == "up") == sorted(SERVICES)
    say(f"{len(expressions())} dashboard queries have data; {len(targets)} targets up")


def test_prometheus__loads_the_rules_and_none_fires(stack: Stack, prometheus: str) -> None:
    rules = ask(stack, "rules")["groups"][0]["rules"]
    assert len(rules) == RULE_COUNT
    assert [rule["name"] for rule in rules if rule["health"] == "err" or rule["state"] == "firing"] == []


def test_promtool__accepts_the_configuration(prometheus: str) -> None:
    assert "SUCCESS" in docker("exec", prometheus, "promtool", "check", "config", "/etc/prometheus/prometheus.yml")


def test_promtool__passes_the_alert_tests(prometheus: str) -> None:
    image = docker("inspect", "--format", "{{.Config.Image}}", prometheus)
    mounted = [f"--volume={DEPLOY}/observability/alerts.yml:/etc/prometheus/alerts.yml:ro"]
    mounted.append(f"--volume={Path(__file__).with_name('alerts.test.yml')}:/alerts.test.yml:ro")
    promtool = ("run", "--rm", "--network=none", "--entrypoint=promtool", *mounted, image)
    assert "SUCCESS" in docker(*promtool, "test", "rules", "/alerts.test.yml")


@pytest.mark.parametrize("service", SERVICES)
def test_promtool__accepts_the_metrics_of_each_service(stack: Stack, prometheus: str, service: str) -> None:
    exposition = stack.metrics(service, stack.containers(service)[0]) + "\n"
    command = ["docker", "exec", "--interactive", prometheus, "promtool", "check", "metrics"]
    done = subprocess.run(command, input=exposition, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_alertmanager__is_known_to_prometheus_and_accepts_alerts(stack: Stack, prometheus: str) -> None:
    (edge,) = stack.containers("edge")
    alert = [{"labels": {"alertname": "SluiceTest", "severity": "info"}}]
    code = f"""
import json, urllib.request as u
api = "http://alertmanager:9093/api/v2/alerts"
u.urlopen(u.Request(api, json.dumps({alert!r}).encode(), {{"Content-Type": "application/json"}}), timeout=5)
print(u.urlopen(api, timeout=5).read().decode())
"""
    assert [found["labels"]["alertname"] for found in json.loads(stack.python(edge, code))] == ["SluiceTest"]
    [known] = ask(stack, "alertmanagers")["activeAlertmanagers"]
    assert known["url"] == "http://alertmanager:9093/api/v2/alerts"

"""Grafana's dashboards have a valid layout, and its data source and folders exist."""

import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy" / "compose"
OBSERVABILITY = DEPLOY / "observability"
DASHBOARDS = sorted((OBSERVABILITY / "dashboards").glob("*.json"))
COLUMNS = 24


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())  # JSON is YAML too


@pytest.fixture
def compose() -> Any:
    return read(DEPLOY / "compose.yaml")["services"]


@pytest.fixture
def source() -> Any:
    (only,) = read(OBSERVABILITY / "grafana" / "datasources" / "prometheus.yml")["datasources"]
    return only


def cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    at = panel["gridPos"]
    return set(product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_each_panel__has_a_unique_id_and_place_and_an_existing_source(path: Path, source: Any) -> None:
    panels = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 0
    taken = [cell for panel in panels for cell in cells(panel)]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < COLUMNS
    asked = {"type": source["type"], "uid": source["uid"]}
    assert [panel["title"] for panel in panels if panel["datasource"] != asked] == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_each_query__selects_the_installation_and_our_services(path: Path) -> None:
    board = json.loads(path.read_text())
    [variable] = board["templating"]["list"]
    assert (variable["name"], variable["includeAll"], variable["allValue"]) == ("namespace", True, ".*")
    for target in (target for panel in board["panels"] for target in panel["targets"]):
        asked = re.findall(r"\b(sluice_\w+|process_\w+|up)\b({[^}]*})?", target["expr"])
        assert asked
        for metric, labels in asked:
            assert 'namespace=~"$namespace"' in labels, target["expr"]
            assert metric.startswith("sluice_") or 'job=~"edge|inference|metrics|analyst"' in labels, target["expr"]


def test_dashboards__have_unique_ids() -> None:
    assert len({json.loads(path.read_text())["uid"] for path in DASHBOARDS}) == len(DASHBOARDS) > 0


def test_source__is_the_prometheus_of_compose_with_its_interval(compose: Any, source: Any) -> None:
    assert source["url"] == "http://prometheus:9090"
    assert set(compose["prometheus"]["networks"]) & set(compose["grafana"]["networks"])
    assert source["jsonData"]["timeInterval"] == read(OBSERVABILITY / "prometheus.yml")["global"]["scrape_interval"]


def test_grafana__finds_its_files_where_compose_mounts_them(compose: Any) -> None:
    mounts = {target: source for source, target, *_ in (line.split(":") for line in compose["grafana"]["volumes"])}
    provisioned = {name: DEPLOY / mounts[f"/etc/grafana/provisioning/{name}"] for name in ("datasources", "dashboards")}
    assert all(list(folder.glob("*.yml")) for folder in provisioned.values())
    (provider,) = read(provisioned["dashboards"] / "sluice.yml")["providers"]
    assert sorted((DEPLOY / mounts[provider["options"]["path"]]).glob("*.json")) == DASHBOARDS

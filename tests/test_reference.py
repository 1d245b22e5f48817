"""The generated reference of the documentation names everything that users can set, scrape and call."""

import json
import re
from pathlib import Path

from reference import api, events, metrics, policies, settings

from analyst.settings import AnalystSettings
from common.contracts.events import CounterEvent, PredictionEvent
from common.runtime.settings import variables
from edge_limiter.ratelimit.policy_file import PolicyModel
from edge_limiter.settings import EdgeSettings
from inference.settings import InferenceSettings
from metrics.settings import MetricsSettings

ROOT = Path(__file__).parents[1]
OBSERVABILITY = ROOT / "deploy" / "compose" / "observability"


def rows(page: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]


def test_settings__lists_every_variable_with_its_meaning() -> None:
    classes = (EdgeSettings, InferenceSettings, MetricsSettings, AnalystSettings)
    page = rows(settings())
    assert {name for cls in classes for name in variables(cls)} <= {row[0].strip("`") for row in page}
    assert [row for row in page if len(row[-1]) < 4] == []


def test_metrics__lists_every_metric_of_the_alerts_and_dashboards() -> None:
    files = [file for file in OBSERVABILITY.rglob("*") if file.suffix in (".yml", ".json") and "test" not in file.name]
    used = {name for file in files for name in re.findall(r"\bsluice_[a-z_]+[a-z]", file.read_text(encoding="utf-8"))}
    listed = {row[0].strip("`") for row in rows(metrics())}
    recorded = {name for name in used if ":" in name}
    series = {f"{name}{suffix}" for name in listed for suffix in ("", "_bucket", "_sum", "_count")}
    assert len(used) > 20
    assert used - recorded - series == set()


def test_api__lists_every_route() -> None:
    document = ROOT / "services" / "edge-limiter" / "edge_limiter" / "pages" / "openapi.json"
    paths = json.loads(document.read_text(encoding="utf-8"))["paths"]
    listed = {row[0].strip("`").split()[1] for row in rows(api())}
    assert listed == set(paths)


def test_policies_and_events__list_every_field() -> None:
    fields = [row[0].strip("`") for row in rows(policies())]
    assert fields == [*PolicyModel.model_fields]
    fields = [row[0].strip("`") for row in rows(events())]
    assert fields == [*PredictionEvent.model_fields, *CounterEvent.model_fields]

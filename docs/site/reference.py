"""The generated pages of the reference: settings, metrics, HTTP API, policies and events, read from the code."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from common.contracts.events import STREAM, CounterEvent, PredictionEvent
from edge_limiter.ratelimit.policy_file import PolicyModel

ROOT: Final = Path(__file__).parents[2]
TYPES: Final = {"Counter": "counter", "Gauge": "gauge", "Histogram": "histogram", "Info": "info"}
OWNERS: Final = {
    "libs/common/common": "every service",
    "services/edge-limiter/edge_limiter": "edge-limiter",
    "services/inference/inference": "inference",
    "services/metrics/metrics": "metrics",
    "services/analyst/analyst": "analyst",
}
METHODS: Final = ("get", "post", "put", "patch", "delete")


def settings() -> str:
    """Return the page of settings, from `.env.example`, which a test compares with the settings classes."""
    lines = ["# Settings", "", "Every setting is an environment variable. Set it in `.env` or in the environment.", ""]
    meaning: list[str] = []
    for line in (ROOT / ".env.example").read_text(encoding="utf-8").splitlines():
        if section := re.fullmatch(r"# -+ (.*)", line):
            title, _, explanation = section[1].partition(";")
            lines += ["", f"## {title.strip().capitalize()}", ""]
            if note := explanation.strip():
                lines += [f"{note[:1].upper()}{note[1:]}.", ""]
            lines += ["| variable | default | meaning |", "|---|---|---|"]
        elif variable := re.fullmatch(r"#([A-Z][A-Z0-9_]*)=(.*)", line):
            default = f"`{variable[2]}`" if variable[2] else ""
            lines.append(f"| `{variable[1]}` | {default} | {_cell(' '.join(meaning))} |")
            meaning = []
        else:
            meaning = [*meaning, line.removeprefix("#").strip()] if line else []
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as Prometheus shows it."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str


def metrics() -> str:
    """Return the page of metrics, from the calls that create them."""
    lines = ["# Metrics", "", "Each service answers `GET /metrics` on its ops port (9000 to 9003).", ""]
    for folder, owner in OWNERS.items():
        lines += [f"## {owner.capitalize()}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
        for metric in sorted(declared(ROOT / folder), key=lambda metric: metric.name):
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            lines.append(f"| `{metric.name}` | {metric.type} | {labels} | {_cell(metric.meaning)} |")
        lines.append("")
    return "\n".join(lines)


def declared(folder: Path) -> Iterator[Metric]:
    """Yield the metrics that the modules below `folder` create."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and (metric := _metric(node)):
                yield metric


def _metric(call: ast.Call) -> Metric | None:
    """Return the metric that this call creates: its first argument is a name of ours."""
    function = call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")
    type_ = TYPES.get(function.lstrip("_").removesuffix("MetricFamily").capitalize())
    words = [_text(argument) for argument in call.args]
    if type_ is None or len(words) < 2 or not words[0].startswith("sluice_"):
        return None
    arguments = [*call.args[2:3], *(keyword.value for keyword in call.keywords if keyword.arg == "labelnames")]
    lists = [argument for argument in arguments if isinstance(argument, ast.List | ast.Tuple)]
    labels = tuple(_text(label) for label in lists[0].elts) if lists else ()
    suffix = {"counter": "_total", "info": "_info"}.get(type_, "")
    return Metric(words[0].removesuffix(suffix) + suffix, type_, labels, words[1])


def _text(node: ast.expr) -> str:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def api() -> str:
    """Return the page of routes, from the committed OpenAPI document."""
    file = ROOT / "services" / "edge-limiter" / "edge_limiter" / "pages" / "openapi.json"
    document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    lines = ["# HTTP API", "", document["info"]["description"], ""]
    lines += ["`GET /docs` of a running edge shows every schema with examples to try.", ""]
    by_tag: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if operation := item.get(method):
                row = f"| `{method.upper()} {path}` | {_cell(operation.get('summary', ''))} |"
                by_tag.setdefault(next(iter(operation.get("tags", ())), "Other"), []).append(row)
    for tag, rows in by_tag.items():
        lines += [f"## {tag.capitalize()}", "", "| route | what it does |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def policies() -> str:
    """Return the page of the policy file, from the model that reads it."""
    lines = ["# Policy file", "", "`EDGE_POLICY_FILE` is TOML: a list of `[[policies]]` with these fields.", ""]
    lines += ["[Limits by a policy file](../operations.md#limits-by-a-policy-file) explains them with an example.", ""]
    return "\n".join([*lines, *_fields(PolicyModel)]) + "\n"


def events() -> str:
    """Return the page of events, from the models that services exchange."""
    lines = ["# Events", "", f"Each entry of the Redis stream `{STREAM}` has one field, `event`, which is JSON.", ""]
    for model in (PredictionEvent, CounterEvent):
        lines += [f"## {model.__name__}", "", model.__doc__ or "", "", *_fields(model), ""]
    return "\n".join(lines)


def _fields(model: type[BaseModel]) -> Iterator[str]:
    """Yield a table of a model's fields."""
    schema = model.model_json_schema()
    yield from ("| field | type | default |", "|---|---|---|")
    for name, field in schema["properties"].items():
        default = "required" if name in schema["required"] else f"`{json.dumps(field.get('default'))}`"
        yield f"| `{name}` | {_cell(_type(field, schema))} | {default} |"


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """Describe a JSON schema in words, with its bounds."""
    if "$ref" in field:
        return _type(schema["$defs"][field["$ref"].rpartition("/")[2]], schema)
    if "anyOf" in field:
        return " or ".join(_type(each, schema) for each in field["anyOf"])
    if "const" in field or "enum" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "items" in field:
        most = f" of at most {field['maxItems']}" if "maxItems" in field else ""
        return f"list{most}: {_type(field['items'], schema)}"
    if "prefixItems" in field:
        return f"pair of {' and '.join(_type(each, schema) for each in field['prefixItems'])}"
    low, high = field.get("minimum"), field.get("maximum")
    bounds = f", {low} to {high}" if high is not None else f", at least {low}" if low is not None else ""
    length = f", at most {field['maxLength']} characters" if "maxLength" in field else ""
    pattern = f", `{field['pattern']}`" if "pattern" in field else ""
    return f"{field['type']}{bounds}{length}{pattern}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES: Final = {
    "reference/settings.md": settings,
    "reference/metrics.md": metrics,
    "reference/api.md": api,
    "reference/policies.md": policies,
    "reference/events.md": events,
}

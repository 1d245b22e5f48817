"""The generated pages of the reference: settings, metrics and the HTTP API, read from what the code itself uses."""

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

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


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES: Final = {"reference/settings.md": settings, "reference/metrics.md": metrics, "reference/api.md": api}

"""The brief in the words that a model gets: measured facts and checks, never a client's text or a secret."""

import json
from importlib import resources
from typing import Any

from analyst.facts.checks import Observation
from analyst.facts.fact import Fact
from analyst.llm.client import Prompt
from analyst.report.models import PROMPT_VERSION, Reading
from analyst.service import ReportInput

_DIRECTIONS = {1: "rose", -1: "fell", 0: "unchanged"}
_BETTER = {1: "higher", -1: "lower", 0: "neither"}
_READINGS: tuple[Reading, ...] = ("current", "previous", "delta_abs", "delta_pct", "threshold")


def write_prompt(brief: ReportInput) -> Prompt:
    """The prompt of PROMPT_VERSION; with refusals in the brief, a request to write the draft anew without them."""
    document: dict[str, Any] = {
        "status": brief.status,
        "windows": sorted(brief.facts.windows),
        "facts": [_fact(fact) for fact in brief.facts.by_id.values()],
        "observations": [_observation(observation) for observation in brief.observations],
    }
    if brief.refusals:
        document["your_last_draft_was_refused_because"] = [
            {"place": refusal.place, "reason": refusal.reason, "words": refusal.words} for refusal in brief.refusals
        ]
    return Prompt(system=_file("md"), user=json.dumps(document, ensure_ascii=False, allow_nan=False))


def draft_schema() -> dict[str, Any]:
    """The JSON Schema of a draft as model APIs take it: flat, no defaults, no unions, references resolved."""
    schema: dict[str, Any] = json.loads(_file("schema.json"))
    return schema


def _file(suffix: str) -> str:
    return resources.files("analyst.llm").joinpath(f"prompts/{PROMPT_VERSION}.{suffix}").read_text(encoding="utf-8")


def _fact(fact: Fact) -> dict[str, Any]:
    values = {reading: fact.read(reading) for reading in _READINGS}
    return {
        "metric": fact.id,
        "name": fact.name,
        "unit": fact.unit,
        **({"window": fact.rule.rule.window} if fact.rule is not None else {}),
        "better_when": _BETTER[fact.polarity],
        "change": _DIRECTIONS[fact.direction] if values["previous"] is not None else "unknown",
        **{reading: value.value if value is not None else None for reading, value in values.items()},
    }


def _observation(observation: Observation) -> dict[str, str]:
    return {
        "kind": observation.kind,
        "severity": observation.severity,
        "category": observation.category,
        "metric": observation.fact.id,
    }

"""The checker against 200 true reports, and the figures of 200 reports against the metrics they come from."""

import hashlib
import json
import random
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest
from true_reports import expected_value, random_aggregate, random_drift, true_report

from analyst.facts.checks import run_checks, status_of
from analyst.facts.facts import read_facts
from analyst.grounding.grounding import check_draft
from analyst.llm.prompt import draft_schema, write_prompt
from analyst.report.models import PROMPT_VERSION, Draft
from analyst.report.rendering import render
from analyst.report.templates import draft_by_rules
from analyst.service import ReportInput
from common.contracts.aggregates import Aggregate, Group, LabelShare, SeriesPoint
from common.contracts.base import Window

REPORTS = 200
PROMPTS = Path(str(resources.files("analyst.llm"))) / "prompts"
SUFFIXES = ("md", "schema.json")
MARKER = "my secret text 4711"


def test_true_reports__are_refused_in_two_percent_at_most() -> None:
    refused: Counter[str] = Counter()
    for seed in range(REPORTS):
        chance = random.Random(seed)
        aggregate = random_aggregate(chance)
        window: Window = chance.choice(get_args(Window))
        drift = random_drift(chance)
        facts = read_facts(aggregate, window, drift)
        status = status_of(facts, run_checks(facts))
        draft = true_report(aggregate, drift, window, status, chance)
        if refusals := check_draft(draft, facts, status):
            refused[f"{refusals[0]}: {refusals[0].words}"] += 1
    assert refused.total() <= REPORTS * 0.02, refused


def test_every_figure_of_200_reports__equals_the_metrics_value() -> None:
    figures: Counter[str] = Counter()
    for seed in range(REPORTS):
        aggregate = random_aggregate(random.Random(seed))
        drift = random_drift(random.Random(seed))
        facts = read_facts(aggregate, "1h", drift)
        observations = run_checks(facts)
        status = status_of(facts, observations)
        drafts = (
            draft_by_rules(facts, observations, status),
            true_report(aggregate, drift, "1h", status, random.Random(seed)),
        )
        document = aggregate.model_dump(mode="json") | {"drift": drift.model_dump(mode="json")}
        for figure in (figure for draft in drafts for figure in render(draft, facts).figures):
            assert figure.value == pytest.approx(expected_value(document, figure), rel=1e-12), figure
            figures[figure.method] += 1
    assert min(figures["exact"], figures["sketch"]) > 2 * REPORTS


# ---- the prompt


def _prompt(aggregate: Aggregate) -> str:
    facts = read_facts(aggregate, "1h", random_drift(random.Random(1)))
    observations = run_checks(facts)
    prompt = write_prompt(ReportInput(facts, observations, status_of(facts, observations), []))
    return prompt.system + prompt.user


def test_prompt__has_no_room_for_a_text() -> None:
    """Whatever strings an aggregate can carry, only words that look like identifiers get through."""
    plain = random_aggregate(random.Random(1))
    point = SeriesPoint(at=plain.range.start, requests=1, predictions=1, errors=0, rate_limited=0)
    marked = plain.model_copy(
        update={
            "labels": [*plain.labels, LabelShare(label=MARKER, count=1, share=0.1)],
            "groups": [
                Group(key={"label": MARKER, "model": MARKER, "route": MARKER}, requests=1, latency_ms=plain.latency_ms)
            ],
            "series": [point],
        }
    )
    assert MARKER in marked.model_dump_json()
    assert MARKER not in _prompt(marked)
    assert "4711" not in _prompt(marked)


def test_prompt__tells_how_far_things_drifted() -> None:
    drift = random_drift(random.Random(1))
    facts = read_facts(random_aggregate(random.Random(1)), "1h", drift)
    prompt = write_prompt(ReportInput(facts, run_checks(facts), "degraded", []))
    told = {fact["metric"]: fact for fact in json.loads(prompt.user)["facts"]}
    for name in ("labels", "confidence", "length"):
        assert told[f"drift.{name}"]["current"] == getattr(drift, name).value
        assert (told[f"drift.{name}"]["previous"], told[f"drift.{name}"]["change"]) == (None, "unknown")


def test_prompt_files__are_those_of_their_version() -> None:
    """Whoever changes a file gives it a new version, since reports and keys name it."""
    found = hashlib.sha256(b"".join((PROMPTS / f"{PROMPT_VERSION}.{suffix}").read_bytes() for suffix in SUFFIXES))
    assert (PROMPT_VERSION, found.hexdigest()) == (
        "6",
        "1cbe406ebdfae78350ad30b2a2845b2d5a60c96f94a91e7be89ae950d8010db2",
    )
    assert {file.name for file in PROMPTS.iterdir()} == {f"{PROMPT_VERSION}.{suffix}" for suffix in SUFFIXES}


def test_prompt__is_the_same_for_the_same_facts() -> None:
    assert _prompt(random_aggregate(random.Random(1))) == _prompt(random_aggregate(random.Random(1)))


def test_schema_file__is_the_drafts_schema_flattened() -> None:
    """Model APIs know neither `$ref` nor `additionalProperties`, defaults, unions or titles."""
    whole = Draft.model_json_schema()

    def flat(node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in node:
            node = whole["$defs"][node["$ref"].rpartition("/")[2]]
        if node["type"] == "object":
            properties = {name: flat(child) for name, child in node["properties"].items()}
            return {"type": "object", "properties": properties, "required": node["required"]}
        kept: dict[str, Any] = {name: node[name] for name in ("type", "description", "enum") if name in node}
        if "enum" in node:
            kept["format"] = "enum"
        return kept | ({"items": flat(node["items"])} if "items" in node else {})

    assert draft_schema() == flat(whole)
    assert not {'"$ref"', '"default"', '"anyOf"'} & set(json.dumps(draft_schema()).replace(":", " ").split())

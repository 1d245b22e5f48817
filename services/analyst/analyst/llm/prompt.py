"""The prompt: measured facts and what was observed, without any client's text."""

import json
from importlib import resources
from typing import Any

from analyst.llm.client import Prompt
from analyst.report.format import show
from analyst.report.models import PROMPT_VERSION
from analyst.report.selection import Offer, response_schema
from analyst.report.templates import state


def write_prompt(offer: Offer, errors: list[str]) -> Prompt:
    """Return the prompt. `errors` are those of a malformed answer to the same offer."""
    names = {fact.id: fact.name for fact in offer.facts.by_id.values()}
    document: dict[str, Any] = {
        "status": offer.status,
        "facts": {key: f"{names[each.metric]}, {each.window}: {show(each)}" for key, each in offer.book.by_id.items()},
        "observations": {
            key: {"severity": each.severity, "sentence": state(each, offer.book).detail}
            for key, each in offer.observations.items()
        },
        "hypotheses": {key: each.sentence for key, each in offer.hypotheses.items()},
        "actions": {key: each.sentence for key, each in offer.actions.items()},
    }
    if errors:
        document["your_last_answer_was_malformed"] = errors
    path = resources.files("analyst.llm").joinpath(f"prompts/{PROMPT_VERSION}.md")
    user = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return Prompt(system=path.read_text(encoding="utf-8"), user=user, schema=response_schema(offer))

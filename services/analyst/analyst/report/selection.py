"""What a model may choose for a report: ids of observations, hypotheses and actions, and one paragraph.

The answer is validated against the same ids that its response schema lists, so that it cannot contain a claim.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from analyst.facts.checks import Observation
from analyst.facts.facts import Facts
from analyst.report import actions, hypotheses
from analyst.report.actions import ACTIONS
from analyst.report.format import show
from analyst.report.hypotheses import HYPOTHESES
from analyst.report.models import Confidence, Frozen, Priority, Severity, Status
from analyst.report.templates import FigureBook

NONE: Final = "none"
MAX_ACTIONS: Final = 3
MAX_CHARACTERS: Final = 600
MAX_SENTENCES: Final = 3
_PRIORITIES: Final[dict[Severity, Priority]] = {"critical": "high", "warning": "medium", "info": "low"}
_REFERENCE: Final = re.compile(r"\{(f[1-9][0-9]{0,3})\}", re.ASCII)
_METRIC_NAME: Final = re.compile(r"\bp(?:50|90|95|99)\b", re.ASCII)
_SENTENCE_END: Final = re.compile(r"[.!?。！？](?=\s|$)")
_PLAIN: Final = frozenset(" .,;:!?'\"()-–—’“”…")
_NUMBER_WORD: Final = re.compile(
    r"\b(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|\w+teen|twenty|thirty|forty|fifty|sixty"
    r"|seventy|eighty|ninety|dozens?|hundreds?|thousands?|millions?|billions?|half|halved|thirds?|quarters?|once|twice"
    r"|doubled?|tripled?|quadrupled?|percent|per cent|percentage|\w+fold)\b",
    re.IGNORECASE,
)


class FindingChoice(Frozen):
    observations: list[str]
    hypothesis: str
    confidence: Confidence


class ActionChoice(Frozen):
    action: str
    priority: Priority


class Selection(Frozen):
    """A model's answer, or the default that code selects."""

    headline: str
    findings: list[FindingChoice]
    actions: list[ActionChoice]
    interpretation: str = ""


class MalformedSelection(Exception):
    """The text is not the JSON that the schema describes; `errors` name the fields."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__(errors[0])
        self.errors = errors


class UnknownChoice(Exception):
    """The selection names an id that was not offered."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What may be selected for one report, by id."""

    facts: Facts
    status: Status
    book: FigureBook
    observations: dict[str, Observation]
    hypotheses: dict[str, hypotheses.Hypothesis]
    actions: dict[str, actions.Action]

    @property
    def headlines(self) -> list[str]:
        """Only the most severe observations, so that the headline agrees with the status."""
        worst = next(iter(self.observations.values()), None)
        return [key for key, each in self.observations.items() if worst and each.severity == worst.severity]


def make_offer(facts: Facts, observations: list[Observation], status: Status) -> Offer:
    signals = {observation.signal for observation in observations}
    causes = {each.key: each for each in HYPOTHESES if each.applies(signals)}
    applicable = {each.key: each for each in ACTIONS if each.applies(causes.keys(), signals)}
    numbered = {f"o{number}": observation for number, observation in enumerate(observations, 1)}
    return Offer(facts, status, FigureBook(facts), numbered, causes, applicable)


def response_schema(offer: Offer) -> dict[str, Any]:
    """Return the JSON Schema of a selection, whose enums list what is offered."""
    finding = {
        "observations": {"type": "array", "items": _enum(offer.observations)},
        "hypothesis": _enum([*offer.hypotheses, NONE]),
        "confidence": _enum(["low", "medium", "high"]),
    }
    action = {"action": _enum(offer.actions), "priority": _enum(["low", "medium", "high"])}
    return _object(
        {
            "headline": _enum([*offer.headlines, NONE]),
            "findings": {"type": "array", "items": _object(finding)},
            "actions": {"type": "array", "items": _object(action)},
            "interpretation": {"type": "string"},
        }
    )


def parse_selection(text: str, offer: Offer) -> Selection:
    """Return a valid selection. Raises MalformedSelection and UnknownChoice."""
    try:
        selection = Selection.model_validate_json(text)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise MalformedSelection([f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in details[:5]]) from None
    chosen = [name for finding in selection.findings for name in finding.observations]
    _require(chosen, {*offer.observations, NONE})
    _require((finding.hypothesis for finding in selection.findings), {*offer.hypotheses, NONE})
    _require((item.action for item in selection.actions), {*offer.actions, NONE})
    _require([selection.headline], {*offer.headlines, NONE})
    return _completed(selection, offer)


def default_selection(offer: Offer) -> Selection:
    """Select by code alone: one finding for each cause with its effects, then one for each remaining category."""
    left = dict(offer.observations)
    groups: list[tuple[list[str], str, Confidence]] = []
    for hypothesis in offer.hypotheses.values():
        signals = {each.signal for each in left.values()}
        if not hypothesis.applies(signals):
            continue
        names = [name for name, each in left.items() if each.signal in hypothesis.effects | hypothesis.evidence]
        names += [name for name, each in left.items() if name not in names and _explains(each, names, left)]
        groups.append((names, hypothesis.key, hypothesis.confidence(signals)))
        left = {name: each for name, each in left.items() if name not in names}
    for category in dict.fromkeys(each.category for each in left.values()):
        groups.append(([name for name, each in left.items() if each.category == category], NONE, "low"))
    order = list(offer.observations)
    groups.sort(key=lambda group: min(order.index(name) for name in group[0]))
    findings = [
        FindingChoice(observations=_sorted(names, order), hypothesis=key, confidence=confidence)
        for names, key, confidence in groups
    ]
    return Selection(headline=order[0] if order else NONE, findings=findings, actions=_default_actions(findings, offer))


def check_interpretation(text: str, book: FigureBook) -> str | None:
    """Return the paragraph with its references filled in, or None if it is not plain text without digits.

    The checks are mechanical: length, references, digits and number words, and characters of markup.
    """
    text = " ".join(text.split())
    bare = _METRIC_NAME.sub("", _REFERENCE.sub("", text))
    is_short = len(text) <= MAX_CHARACTERS and len(_SENTENCE_END.findall(text)) <= MAX_SENTENCES
    if not text or not is_short or _NUMBER_WORD.search(bare) or not all(map(_is_plain, bare)):
        return None
    if any(name not in book.by_id for name in _REFERENCE.findall(text)):
        return None
    return _REFERENCE.sub(lambda match: show(book.by_id[match[1]]), text)


def _completed(selection: Selection, offer: Offer) -> Selection:
    """Drop placeholders, repetitions and unsupported causes, and append severe observations that were left out."""
    seen: set[str] = set()
    findings = []
    for choice in selection.findings:
        names = [name for name in dict.fromkeys(choice.observations) if name != NONE and name not in seen]
        seen |= set(names)
        if names:
            signals = {offer.observations[name].signal for name in names}
            hypothesis = offer.hypotheses.get(choice.hypothesis)
            supported = hypothesis is not None and hypothesis.effects & signals
            key = choice.hypothesis if supported else NONE
            findings.append(FindingChoice(observations=names, hypothesis=key, confidence=choice.confidence))
    missing = {name for name, each in offer.observations.items() if name not in seen and each.severity != "info"}
    for default in default_selection(offer).findings:
        names = [name for name in default.observations if name in missing]
        if names:
            findings.append(default.model_copy(update={"observations": names, "hypothesis": NONE}))
    actions = {item.action: item for item in reversed(selection.actions) if item.action != NONE}
    headline = selection.headline if selection.headline != NONE else next(iter(offer.headlines), NONE)
    chosen = [*reversed(actions.values())][:MAX_ACTIONS]
    return selection.model_copy(update={"headline": headline, "findings": findings, "actions": chosen})


def _default_actions(findings: list[FindingChoice], offer: Offer) -> list[ActionChoice]:
    chosen: dict[str, ActionChoice] = {}
    for finding in findings:
        members = [offer.observations[name] for name in finding.observations]
        for action in offer.actions.values():
            by_cause = finding.hypothesis in action.hypotheses
            by_signal = finding.hypothesis == NONE and action.signals & {each.signal for each in members}
            if by_cause or by_signal:
                priority = _PRIORITIES[members[0].severity]
                chosen.setdefault(action.key, ActionChoice(action=action.key, priority=priority))
    return [*chosen.values()][:MAX_ACTIONS]


def _explains(observation: Observation, names: list[str], left: dict[str, Observation]) -> bool:
    """Queue, compute, text length and cache share belong to the finding about latency."""
    return observation.kind == "explanation" and any(left[name].category == "latency" for name in names)


def _sorted(names: list[str], order: list[str]) -> list[str]:
    return sorted(names, key=order.index)


def _require(names: Iterable[str], offered: set[str]) -> None:
    for name in names:
        if name not in offered:
            raise UnknownChoice


def _is_plain(character: str) -> bool:
    kind = unicodedata.category(character)
    return character in _PLAIN or (kind[0] in "LM" and not character.isnumeric())


def _enum(names: Iterable[str]) -> dict[str, Any]:
    return {"type": "string", "format": "enum", "enum": [*names] or [NONE]}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties]}

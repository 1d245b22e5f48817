"""The checker every draft passes, a model's and the rules' alike: no figure in prose that code did not look up.

Pure text against facts; it changes nothing. What the words claim is `analyst.grounding.claims` (directions, causes)
and `analyst.grounding.health`, what stands beside a figure is `analyst.grounding.beside`, and which times may be named
is `analyst.grounding.times`.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from analyst.facts.facts import Facts
from analyst.grounding import lexicon
from analyst.grounding.beside import refused_neighbours
from analyst.grounding.claims import refused_claims
from analyst.grounding.counts import refused_counts
from analyst.grounding.health import refused_verdicts
from analyst.grounding.naming import refused_names, without_labels
from analyst.grounding.passage import Cited, Passage
from analyst.grounding.readings import refused_readings
from analyst.grounding.times import refused_times
from analyst.report.models import Draft, Evidence, Status

MAX_TEXT: Final = 800
MAX_ITEMS: Final = 20
MAX_EVIDENCE: Final = 60
_EVIDENCE_ID: Final = re.compile(r"e[0-9]{1,3}")
_NOT_TEXT: Final = ("C", "M", "So", "Zl", "Zp")
"""Unicode categories, or how they begin: controls and formats, marks, pictures, line and paragraph breaks."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a draft is refused; `words` quotes it, for the writer's one repair attempt, never for clients."""

    place: str
    reason: str
    words: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


def check_draft(draft: Draft, facts: Facts, status: Status) -> list[Refusal]:
    """Every reason to refuse `draft`; none means that each figure and claim in it has its fact."""
    cited, refusals = _resolve(draft.evidence, facts)
    passages = list(_passages(draft, cited, facts))
    if long := [*_too_long(draft, passages)]:  # the time that the other checks take grows faster than a text
        return long
    for passage in passages:
        refusals += _evidence(passage, cited)
        for reason, words in (
            *_figures(passage, facts),
            *refused_neighbours(passage),
            *refused_names(passage, facts),
            *refused_readings(passage, facts),
            *refused_times(passage, facts),
            *refused_claims(passage, facts),
            *refused_counts(passage, facts),
            *refused_verdicts(passage, facts, status),
        ):
            refusals.append(Refusal(passage.place, reason, words))
    return refusals


def _resolve(evidence: list[Evidence], facts: Facts) -> tuple[dict[str, Cited], list[Refusal]]:
    cited: dict[str, Cited] = {}
    refusals = []
    for item in evidence:
        fact = facts.get(item.metric)
        value = fact.read(item.window) if fact is not None else None
        if not _EVIDENCE_ID.fullmatch(item.id) or item.id in cited:
            refusals.append(Refusal("evidence", "malformed or repeated id", item.id))
        elif fact is None:
            refusals.append(Refusal("evidence", "unknown metric", item.metric))
        elif value is None:
            refusals.append(Refusal("evidence", "the metric has no such value", f"{item.metric} {item.window}"))
        else:
            cited[item.id] = Cited(fact, item.window, value.value)
    return cited, refusals


def _too_long(draft: Draft, passages: list[Passage]) -> Iterator[Refusal]:
    most_cited = max(len(draft.evidence), *(len(passage.evidence or ()) for passage in passages))
    if max(len(draft.findings), len(draft.recommendations)) > MAX_ITEMS or most_cited > MAX_EVIDENCE:
        yield Refusal("draft", "too long")
    else:
        yield from (Refusal(passage.place, "too long") for passage in passages if len(passage.text) > MAX_TEXT)


def _passages(draft: Draft, cited: dict[str, Cited], facts: Facts) -> Iterator[Passage]:
    def passage(
        place: str, text: str, evidence: list[str] | None, after: str = "", *, is_action: bool = False
    ) -> Passage:
        ids = lexicon.REFERENCE.findall(text) if evidence is None else evidence
        text = without_labels(text, facts)
        return Passage(
            place,
            text,
            [cited[name] for name in ids if name in cited],
            cited,
            evidence,
            is_action,
            without_labels(after, facts),
        )

    yield passage("summary", draft.summary, None)
    for number, finding in enumerate(draft.findings, 1):
        yield passage(f"finding {number} title", finding.title, finding.evidence)
        yield passage(f"finding {number} detail", finding.detail, finding.evidence, finding.title)
    for number, item in enumerate(draft.recommendations, 1):
        yield passage(f"recommendation {number} action", item.action, item.evidence, is_action=True)
        yield passage(f"recommendation {number} rationale", item.rationale, item.evidence, item.action)


def _evidence(passage: Passage, cited: dict[str, Cited]) -> Iterator[Refusal]:
    if passage.evidence is not None:
        if not passage.evidence:
            yield Refusal(passage.place, "no evidence")
        for name in passage.evidence:
            if name not in cited:
                yield Refusal(passage.place, "evidence that is not there", name)
    for name in lexicon.REFERENCE.findall(passage.text):
        if name not in cited:
            yield Refusal(passage.place, "dangling reference", name)


def _figures(passage: Passage, facts: Facts) -> Iterator[tuple[str, str]]:
    """Figures that were written instead of cited, in any disguise."""
    text = passage.text
    yield from _characters(text)
    bare = lexicon.REFERENCE.sub(" ", text)
    if "{" in bare or "}" in bare:
        yield "malformed reference", ""
    bare, unknown = _without_names(bare, facts)
    for name in unknown:
        yield "unknown metric", name
    if any(character.isnumeric() or (character.isalpha() and ord(character) > 0x24F) for character in bare):
        yield "literal figure", next(iter(re.findall(r"\S*[^\W_a-zA-Z]\S*", bare)), "")
    if found := lexicon.NUMBER_WORD.search(lexicon.NOT_A_NUMBER.sub(" ", bare)):
        yield "number word", found[0]
    if found := lexicon.ROMAN.search(lexicon.NOT_ROMAN.sub(" ", bare)):
        yield "number word", found[0]
    if found := lexicon.UNIT.search(bare):
        yield "unit without a figure", found[0]
    if found := lexicon.QUANTITY.search(text):
        yield "quantity without a figure", found[0]


def _characters(text: str) -> Iterator[tuple[str, str]]:
    """What is no plain text; a character may part a word unseen, or show a figure as a picture."""
    if not text.strip():
        yield "empty", ""
    if found := lexicon.MARKUP.search(text):
        yield "markup", found[0]
    if text.isascii() and text.isprintable():
        return
    for character in text:
        if unicodedata.category(character).startswith(_NOT_TEXT):
            yield "hidden character or picture", f"U+{ord(character):04X}"
            return


def _without_names(text: str, facts: Facts) -> tuple[str, list[str]]:
    """The text without the numbers that name something: windows, status codes, metrics; and names nobody knows."""
    for window in facts.windows:
        text = lexicon.window_mention(window).sub(" ", text)
    text = lexicon.STATUS_CODE.sub(" ", text)
    known = {fact.metric for fact in facts.by_id.values()} | facts.by_id.keys()
    unknown = [name for name in lexicon.METRIC_ID.findall(text) if name not in known and name.strip(".") not in known]
    text = _any_of(frozenset(known)).sub(" ", text)
    percentiles = {metric.rpartition(".")[2] for metric in known}
    unknown += [name for name in lexicon.PERCENTILE.findall(text) if name.lower() not in percentiles]
    return lexicon.PERCENTILE.sub(" ", text), unknown


@lru_cache(maxsize=16)
def _any_of(names: frozenset[str]) -> re.Pattern[str]:
    alternatives = "|".join(re.escape(name) for name in sorted(names, key=lambda name: (-len(name), name)))
    return re.compile(rf"(?<![\w.])(?:{alternatives})(?!\w)")

"""What prose claims of limits and of the whole, held against rules and status: breaches, sides, health."""

import re
from collections.abc import Iterator
from typing import Final

from analyst.facts.fact import Fact
from analyst.facts.facts import Facts
from analyst.grounding import lexicon, verdicts
from analyst.grounding.naming import is_named, mentioned, without_names
from analyst.grounding.passage import Passage, Reason, is_instruction
from analyst.report.models import Status

_NEAREST: Final = 120
"""Characters before a limit in which the word that leads to it is looked for."""
_NEAR_SHARE: Final = 0.25
"""Of the limit: as far from it a value may be called near it."""


def refused_verdicts(passage: Passage, facts: Facts, status: Status) -> Iterator[Reason]:
    """Each verdict in the passage that the facts do not carry."""
    for sentence in lexicon.SENTENCE_END.split(passage.text):
        yield from _limits(passage, sentence, facts)
        yield from _health(passage, sentence, facts, status)


def _limits(passage: Passage, sentence: str, facts: Facts) -> Iterator[Reason]:
    if verdicts.MODAL.search(sentence) or is_instruction(passage, sentence):
        return
    rules = _rules_spoken_of(passage, sentence, facts)
    if lexicon.WITHIN.search(sentence) and any(_is_breached(fact) for fact in rules):
        yield "within limits though one is breached", ""
    if match := lexicon.BREACH.search(sentence):
        if any(_is_breached(fact) for fact in rules) == _is_denied(match):
            yield "a breach against the data", match[0]
    if not any(_is_breached(fact) for fact in rules) and (found := _said_of_limits(sentence, facts)):
        yield "a limit that nothing crossed", found
    if _is_said_near(sentence, facts) and not any(_is_near(fact) for fact in rules):
        yield "near a limit that is far away", ""
    if lexicon.LIMIT.search(sentence) and (side := _side(sentence)) and not any(_is_on(fact, side) for fact in rules):
        yield "on the wrong side of a limit", ""


def _said_of_limits(sentence: str, facts: Facts) -> str | None:
    """What leads to a limit and is not known to leave it uncrossed, or crosses it behind; None where it is denied."""
    if lexicon.NEGATION.search(sentence):
        return None
    for led, behind in _limits_in(sentence, facts):
        if led and not verdicts.LEADS_TO_LIMIT.fullmatch(led):
            return led
        if not led and (found := verdicts.CROSSED.search(behind)):
            return found[0]
    return None


def _is_said_near(sentence: str, facts: Facts) -> bool:
    is_denied = lexicon.NEGATION.search(sentence) is not None
    return not is_denied and any(verdicts.NEAR.fullmatch(led) for led, _ in _limits_in(sentence, facts))


def _limits_in(sentence: str, facts: Facts) -> Iterator[tuple[str, str]]:
    """For each limit the word that leads to it, empty where it begins its clause, and the rest of its clause."""
    bare = without_names(lexicon.REFERENCE.sub(" ", sentence), facts)
    for match in lexicon.LIMIT.finditer(bare):
        led = verdicts.LED.search(_clause_before(match)[-_NEAREST:])
        yield (led["word"] or "" if led else ""), lexicon.CLAUSE_END.split(bare[match.end() :])[0]


def _is_near(fact: Fact) -> bool:
    if fact.current is None or fact.threshold is None:
        return False
    return abs(fact.current - fact.threshold) <= _NEAR_SHARE * abs(fact.threshold)


def _is_denied(match: re.Match[str]) -> bool:
    before, after = match.string[: match.start()], match.string[match.end() :]
    return bool(lexicon.NEGATION.search(before) or lexicon.NEGATION.search(after))


def _rules_spoken_of(passage: Passage, sentence: str, facts: Facts) -> list[Fact]:
    cited = [reference.fact for reference in passage.references(sentence) if reference.fact.rule is not None]
    named = mentioned(sentence, facts)
    return cited or [f for f in facts.rules if any(is_named(f.metric, name) for name in named)] or facts.rules


def _is_breached(fact: Fact) -> bool:
    return fact.rule is not None and fact.rule.breached is True


def _side(sentence: str) -> int:
    """+1 for a value said to be above its limit, -1 for below, 0 for neither or both; a denial turns it round."""
    than = lexicon.THAN_LIMIT.search(sentence)
    above = lexicon.ABOVE.search(sentence) or (
        than if than and than[1].lower() not in ("lower", "less", "faster") else None
    )
    below = lexicon.BELOW.search(sentence) or (than if than and not above else None)
    if (above is None) == (below is None):
        return 0
    found = above or below
    denied = found is not None and lexicon.NEGATION.search(sentence[: found.start()])
    return (1 if above else -1) * (-1 if denied else 1)


def _is_on(fact: Fact, side: int) -> bool:
    if fact.current is None or fact.threshold is None:
        return False
    return fact.current >= fact.threshold if side > 0 else fact.current <= fact.threshold


def _health(passage: Passage, sentence: str, facts: Facts, status: Status) -> Iterator[Reason]:
    """A breach of a rule that only informs leaves the service healthy; whoever says so tells of the breach as well."""
    if (claim := verdicts.STATUS_CLAIM.search(sentence)) and claim[1].lower() != status:
        yield "another status than the data's", claim[0]
    for words, clause in _said_well(sentence):
        if status != "healthy":
            yield "healthy though it is not", words
        elif facts.breached and not (verdicts.MODAL.search(clause) or is_instruction(passage, sentence)):
            if words.lower() != "healthy" or not _tells_of_a_breach(passage, facts):
                yield "all well though a threshold is breached", words


def _said_well(sentence: str) -> Iterator[tuple[str, str]]:
    """Words that call something healthy, and are not denied in their clause; with the clause up to them."""
    for match in verdicts.HEALTHY.finditer(sentence):
        clause = _clause_before(match)
        if not lexicon.NEGATION.search(clause):
            yield match[0], clause


def _clause_before(match: re.Match[str]) -> str:
    return lexicon.CLAUSE_END.split(match.string[: match.start()])[-1]


def _tells_of_a_breach(passage: Passage, facts: Facts) -> bool:
    return any(_names_a_breach(passage, sentence, facts) for sentence in lexicon.SENTENCE_END.split(passage.text))


def _names_a_breach(passage: Passage, sentence: str, facts: Facts) -> bool:
    """Whether it says of a breached threshold that it is breached, or that its metric is past its limit."""
    breached = [fact for fact in _rules_spoken_of(passage, sentence, facts) if _is_breached(fact)]
    if (match := lexicon.BREACH.search(sentence)) and not _is_denied(match):
        return bool(breached) and not verdicts.MODAL.search(_clause_before(match))
    if verdicts.MODAL.search(sentence):
        return False
    side = _side(sentence) if lexicon.LIMIT.search(sentence) else 0
    return side != 0 and any(_is_on(fact, side) for fact in breached)

"""What prose claims of limits and of the whole, held against rules and status: breaches, sides, health, none at all."""

from collections.abc import Iterator
from typing import Final

from analyst import lexicon, verdicts
from analyst.claims import Passage, Reason, is_instruction, is_named, mentioned
from analyst.fact import Fact
from analyst.facts import Facts
from analyst.report import Status

_NONE_OF: Final = (
    (lexicon.NO_ERRORS, "error_rate"),
    (lexicon.NO_LIMITED, "limited_rate"),
    (lexicon.NO_TRAFFIC, "requests"),
)


def refused_verdicts(passage: Passage, facts: Facts, status: Status) -> Iterator[Reason]:
    """Each verdict in the passage that the facts do not carry."""
    for sentence in lexicon.SENTENCE_END.split(passage.text):
        yield from _limits(passage, sentence, facts)
        yield from _health(sentence, facts, status)


def _limits(passage: Passage, sentence: str, facts: Facts) -> Iterator[Reason]:
    if verdicts.MODAL.search(sentence) or is_instruction(passage, sentence):
        return
    rules = _rules_spoken_of(passage, sentence, facts)
    if lexicon.WITHIN.search(sentence) and any(_is_breached(fact) for fact in rules):
        yield "within limits though one is breached", ""
    if match := lexicon.BREACH.search(sentence):
        denied = lexicon.NEGATION.search(sentence[: match.start()]) or lexicon.NEGATION.search(sentence[match.end() :])
        breached = any(_is_breached(fact) for fact in rules)
        if breached == (denied is not None):
            yield "a breach against the data", match[0]
    if lexicon.LIMIT.search(sentence) and (side := _side(sentence)) and not any(_is_on(fact, side) for fact in rules):
        yield "on the wrong side of a limit", ""


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


def _health(sentence: str, facts: Facts, status: Status) -> Iterator[Reason]:
    if (claim := verdicts.STATUS_CLAIM.search(sentence)) and claim[1].lower() != status:
        yield "another status than the data's", claim[0]
    match = verdicts.HEALTHY.search(sentence)
    if match and status != "healthy" and not lexicon.NEGATION.search(sentence[: match.start()]):
        yield "healthy though it is not", match[0]
    for pattern, metric in _NONE_OF:
        if (match := pattern.search(sentence)) and facts[metric].current:
            yield "none of what there is", match[0]

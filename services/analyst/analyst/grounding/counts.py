"""What prose says of how many failed, were refused or were answered, where it gives no figure: none, few, most.

It reads the clause for who is counted and holds the word against the counts.
"""

import re
from collections.abc import Iterator
from typing import Final

from analyst.facts.fact import Fact
from analyst.facts.facts import ERRORS_PREFIX, Facts
from analyst.grounding import lexicon, verdicts
from analyst.grounding.naming import failure_names, is_named, mentioned
from analyst.grounding.passage import Passage, Reason, is_instruction

HARDLY_ANY: Final = 0.001
FEW: Final = 0.01
"""Shares of the requests below which failures may be called hardly any, and few or rare."""
MOST: Final = 0.5

_NONE: Final = r"nothing|none|nobody|not (?:one|any|an?)(?: single)?|no|zero|without(?: any)?|free (?:of|from)"
_HARDLY: Final = (
    r"(?:hardly|barely|scarcely|practically|virtually|almost|nearly|next to|close to) (?:any|an?|no|none|nothing|zero)"
)
_FEW: Final = (
    r"few|a few|only (?:some|a few|a handful(?: of)?|a fraction(?: of)?)|a (?:handful|fraction|trickle) of"
    r"|rare|rarely|seldom"
)
_BETWEEN: Final = (
    r"(?: (?!(?:increases?|rise|growth|changes?|more|further|other|new|additional|signs?|in|to|that)\b)[\w-]+){0,3}? "
)
_FAILED: Final = (
    ("errors.timeout", r"time-?outs?|tim(?:ed|es|e) out"),
    ("limited_rate", r"(?:rate[- ])?(?:limited|limiting)|refused|refusals?|rejected|rejections?|throttled"),
    ("error_rate", r"errors?(?! (?:rate|share))|failures?(?! rate)|fail(?:ed|s)?(?! (?:over|back))"),
)
_ANSWERED: Final = r"answered|succeed(?:ed|s)?|served|processed|completed|handled|successful|got through"
_DID_NOT: Final = (
    r" (?:(?:did|do|does|were|was|are|is|have|has|had)(?: been)? )?"
    r"(?:(?:not|never|n't) (?:been )?(?:occur|happen|appear|seen|observed|recorded|found|needed|present|used|there)\w*"
    r"|absent|none|nowhere|non-?existent)"
)
_MOST: Final = lexicon.words(
    r"most(?! (?:recent|likely|probably|of the time))|mostly|mainly|chiefly|largely|predominant\w*|majority|bulk",
    r"dominat\w+|dominant|prevail\w*|outnumber\w*|outweigh\w*|more (?:common|frequent|numerous)",
)


def refused_counts(passage: Passage, facts: Facts) -> Iterator[Reason]:
    """Each word for how many that the counts do not carry."""
    for sentence in lexicon.SENTENCE_END.split(passage.text):
        if is_instruction(passage, sentence):
            continue
        of_before = lexicon.IN_THE_WINDOW_BEFORE.search(sentence) is not None
        for clause in lexicon.CLAUSE_END.split(sentence):
            if not verdicts.MODAL.search(clause):
                yield from _failed(clause, facts, of_before=of_before)
                yield from _answered(clause, facts, of_before=of_before)
                yield from _most(clause, facts)


def _failed(clause: str, facts: Facts, *, of_before: bool) -> Iterator[Reason]:
    own = [(fact.id, failure_names(fact.id)) for fact in facts.errors]
    for metric, words in (*own, *_FAILED):
        share = _share(metric, facts, of_before=of_before)
        for most, patterns in (
            (0.0, (_counted(_NONE, words), rf"(?:{words}){_DID_NOT}", rf"(?:{words})-free")),
            (HARDLY_ANY, (_counted(_HARDLY, words),)),
            (FEW, (_counted(_FEW, words), rf"(?:{words}) (?:[\w-]+ ){{1,3}}(?:{_FEW})")),
        ):
            if share > most and (found := _search("|".join(patterns), clause)) and _is_of(metric, found, facts):
                yield "none of what there is" if not most else "few of what there is more of", found


def _is_of(metric: str, words: str, facts: Facts) -> bool:
    """Not of one kind of failure where all are meant."""
    kinds = {name for name in mentioned(words, facts) if name.startswith(ERRORS_PREFIX)}
    return metric != "error_rate" or kinds <= {ERRORS_PREFIX}


def _answered(clause: str, facts: Facts, *, of_before: bool) -> Iterator[Reason]:
    if _share("requests", facts, of_before=of_before) and (silence := lexicon.NO_TRAFFIC.search(clause)):
        yield "none of what there is", silence[0]
    answered = _share("predictions", facts, of_before=of_before)
    for most, many in ((0.0, _NONE), (HARDLY_ANY, _HARDLY), (MOST, _FEW)):
        if answered > most and (found := _search(_counted(many, _ANSWERED), clause)):
            yield "none of what there is" if not most else "few of what there is more of", found


def _counted(many: str, words: str) -> str:
    return rf"(?:{many}){_BETWEEN}(?:{words})"


def _search(pattern: str, clause: str) -> str | None:
    found = re.search(rf"\b(?:{pattern})\b", clause, re.IGNORECASE)
    return found[0] if found else None


def _share(metric: str, facts: Facts, *, of_before: bool) -> float:
    """Of the requests; of a rate, the rate."""
    fact, requests = facts.get(metric), _value(facts["requests"], of_before=of_before)
    value = _value(fact, of_before=of_before) if fact is not None else 0.0
    return value if fact is not None and fact.unit == "share" else value / requests if requests else 0.0


def _value(fact: Fact, *, of_before: bool) -> float:
    return (fact.previous if of_before else fact.current) or 0.0


def _most(clause: str, facts: Facts) -> Iterator[Reason]:
    """The kind of failure, or the label, that is named first must be the most frequent one."""
    if (found := _MOST.search(clause)) is None or lexicon.NEGATION.search(clause):
        return
    for kinds in (facts.errors, facts.labels):
        named = [fact for fact in kinds if _names(clause, fact, facts)]
        if not named:
            continue
        first = min(named, key=lambda fact: _place(clause, fact, facts))
        if (first.current or 0.0) < max(fact.current or 0.0 for fact in kinds):
            yield "most of what is less", found[0]


def _names(clause: str, fact: Fact, facts: Facts) -> bool:
    """By its own name, and not only as a failure like others."""
    names = mentioned(clause, facts) - {ERRORS_PREFIX, "error_rate"}
    return any(is_named(fact.metric, name) for name in names)


def _place(clause: str, fact: Fact, facts: Facts) -> int:
    """Where the clause has named it, in words."""
    words = clause.split()
    return next(n for n in range(1, len(words) + 1) if _names(" ".join(words[:n]), fact, facts))

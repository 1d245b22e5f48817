"""Which metrics a text names, and that each figure stands under its own metric's name.

It knows the names of what is measured, not of what isn't: a figure in a sentence that names no metric is refused,
because whatever it is said to be ("accuracy", "clients") is nothing that anybody measured.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from analyst.facts.facts import ERRORS_PREFIX, LABEL_PREFIX, Facts
from analyst.grounding import lexicon
from analyst.grounding.passage import Passage, Reason

_FAILURE_NOUNS: Final = r"(?:outcomes?|errors?|failures?|answers?)"
_Known = tuple[tuple[str, str, str, str], ...]
_SHARE_OF: Final = re.compile(r"(?<=\}) of (?:all |the |these )*\w+")


def refused_names(passage: Passage, facts: Facts) -> Iterator[Reason]:
    """Each figure that is not called what it is: "p95 is {e1}" with the median behind e1 is a lie."""
    said = mentioned(passage.after, facts)
    for sentence in lexicon.SENTENCE_END.split(passage.text):
        named = mentioned(sentence, facts)
        if not named and lexicon.REFERS_BACK.match(sentence):
            named = said
        for part, names in _parts(sentence, named, facts):
            for reference in passage.references(part):
                if not names:
                    yield "a figure in a sentence that names no metric", reference.fact.id
                elif not any(is_named(reference.fact.metric, name) for name in names):
                    yield "reference under another metric's name", reference.fact.id
        said = named or said


def mentioned(text: str, facts: Facts) -> set[str]:
    """Ids of the metrics that `text` names; one ending in `.` stands for all that begin with it."""
    return set(_mentioned(text, *_named_by(facts)))


@lru_cache(maxsize=1024)  # each sentence is looked at by several checks
def _mentioned(text: str, known: _Known, labels: tuple[str, ...]) -> frozenset[str]:
    pattern, metrics = _naming(known, labels)
    return frozenset(metric for match in pattern.finditer(text) for metric in metrics[match.lastindex or 0])


def without_names(text: str, facts: Facts) -> str:
    """The text without the names of metrics."""
    return _naming(*_named_by(facts))[0].sub(" ", text)


def is_named(metric: str, name: str) -> bool:
    return metric.startswith(name) if name.endswith(".") else metric == name


def without_labels(text: str, facts: Facts) -> str:
    """The text with each quoted label replaced by a word that names its share alone: a label may be any word."""
    for place, fact in enumerate(facts.labels):
        text = text.replace(f'"{fact.label}"', _mask(place))
    return text


def failure_names(fact_id: str) -> str:
    """A pattern of what one kind of failure is called."""
    return f"{re.escape(fact_id.removeprefix(ERRORS_PREFIX).replace('_', ' '))} {_FAILURE_NOUNS}"


def _mask(place: int) -> str:
    return f"{lexicon.LABEL_MASK}{chr(ord('a') + place)}"


def _parts(sentence: str, named: set[str], facts: Facts) -> list[tuple[str, set[str]]]:
    """The sentence with the metrics it names; by clauses, where several have figures and each names its own."""
    clauses = [clause for clause in lexicon.CLAUSE_END.split(sentence) if lexicon.REFERENCE.search(clause)]
    if len(clauses) > 1:
        parts = [(clause, mentioned(_SHARE_OF.sub(" ", clause), facts)) for clause in clauses]
        if all(names for _, names in parts):
            return parts
    return [(sentence, named)]


def _named_by(facts: Facts) -> tuple[_Known, tuple[str, ...]]:
    """What the names of these facts depend on."""
    known = tuple((fact.id, fact.metric, fact.name, fact.label) for fact in facts.by_id.values())
    return known, tuple(fact.label for fact in facts.labels)


@lru_cache(maxsize=16)
def _naming(known: _Known, labels: tuple[str, ...]) -> tuple[re.Pattern[str], list[tuple[str, ...]]]:
    """One pattern for all names, the most specific first, and the metrics that each of its groups names."""
    own = {(name, (metric,)) for fact_id, metric, name, label in known for name in _own_names(fact_id, name)}
    own |= {(_mask(labels.index(label)), (metric,)) for _, metric, _, label in known if label}
    names = [*sorted(own, key=lambda item: (-len(item[0]), item)), *lexicon.SYNONYMS]
    alternatives = "|".join(f"({name})" for name, _ in names)
    return re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])", re.IGNORECASE), [(), *(found for _, found in names)]


def _own_names(fact_id: str, name: str) -> Iterator[str]:
    """Patterns of what only this fact is called; a label's share goes by the mask."""
    if not fact_id.startswith(LABEL_PREFIX):
        yield re.escape(name)
    if "." in fact_id:
        yield re.escape(fact_id)
    if fact_id.startswith(ERRORS_PREFIX):
        yield failure_names(fact_id)

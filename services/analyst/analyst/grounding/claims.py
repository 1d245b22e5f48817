"""What prose claims without a figure, each held against the facts: directions, drift, causes.

Limits and health are `analyst.grounding.health`.
"""

from collections.abc import Iterator
from typing import Final

from analyst.facts.checks import DRIFT
from analyst.facts.fact import Fact
from analyst.facts.facts import DRIFTS, ERRORS_PREFIX, Facts
from analyst.grounding import lexicon, verdicts
from analyst.grounding.naming import is_named, mentioned
from analyst.grounding.passage import Cited, Passage, Reason, is_instruction

FLAT_PCT: Final = 10.0
"""A change below this may be called stable."""


def refused_claims(passage: Passage, facts: Facts) -> Iterator[Reason]:
    """Each claim in the passage that the facts do not carry."""
    for sentence in lexicon.SENTENCE_END.split(passage.text):
        yield from _prepositions(passage, sentence)
        yield from _directions(passage, sentence, facts)
        yield from _drift(passage, sentence, facts)
        yield from _causes(passage, sentence)


def is_directed(sentence: str) -> bool:
    """Whether words already say which way a change went, so that its figure is shown without a sign."""
    return any(pattern.search(sentence) for pattern in (lexicon.UP, lexicon.DOWN, lexicon.WORSE, lexicon.BETTER))


# ---- levels where changes belong


def _prepositions(passage: Passage, sentence: str) -> Iterator[Reason]:
    for match in lexicon.REFERENCE.finditer(sentence):
        reference = passage.cited.get(match[1])
        before = sentence[: match.start()]
        if reference is None:
            continue
        if lexicon.BY.search(before) and not reference.is_delta and is_directed(sentence):
            yield "a change 'by' something that is not a change", match[1]
        if lexicon.TO.search(before) and reference.is_delta:
            yield "a change where a level belongs", match[1]
    for first, second in lexicon.FROM_TO.findall(sentence):
        readings = [passage.cited[name].reading for name in (first, second) if name in passage.cited]
        if len(readings) == 2 and readings != ["previous", "current"]:
            yield "from … to … must go from previous to current", f"{first} {second}"


# ---- directions


def _directions(passage: Passage, sentence: str, facts: Facts) -> Iterator[Reason]:
    said: list[str] = []
    text = lexicon.THAN_OTHER.sub(" ", lexicon.THAN_LIMIT.sub(" ", sentence))
    for clause in lexicon.CLAUSE_END.split(text):
        references = passage.references(clause)
        deltas = [reference for reference in references if reference.is_delta]
        own = _direction_words(clause)
        said = own or said
        words = said if deltas else own
        if deltas and not words and not lexicon.CHANGE.search(sentence):
            yield "a change without a direction", ""
        if not deltas and (is_instruction(passage, sentence) or verdicts.MODAL.search(clause)):
            continue
        subjects = _subjects(passage, references, clause, sentence, facts)
        for word in words:
            if not subjects:
                yield "direction without a metric", word
            elif not _agrees(word, subjects, [delta.fact for delta in deltas]):
                yield "direction against the data", word


def _direction_words(clause: str) -> list[str]:
    """Kinds of direction in the clause; `not ` in front where it is denied."""
    found = []
    kinds = {"up": lexicon.UP, "down": lexicon.DOWN, "worse": lexicon.WORSE, "better": lexicon.BETTER}
    for kind, pattern in (*kinds.items(), ("flat", lexicon.FLAT)):
        if match := pattern.search(clause):
            denied = kind != "flat" and lexicon.NEGATION.search(clause[: match.start()])
            found.append(f"not {kind}" if denied else kind)
    return found


def _subjects(passage: Passage, references: list[Cited], clause: str, sentence: str, facts: Facts) -> list[Fact]:
    """What a direction word speaks of: the clause's references, else the metrics named, else the evidence."""
    if references:
        found = [reference.fact for reference in references]
    else:
        named = mentioned(clause, facts) or mentioned(sentence, facts)
        found = [f for f in facts.by_id.values() if f.rule is None and any(is_named(f.metric, name) for name in named)]
        if "error_rate" in named:  # of errors in general: their share and their number, not any one kind
            found = [*(fact for fact in found if not fact.id.startswith(ERRORS_PREFIX)), _all_errors(facts)]
    found = found or [reference.fact for reference in passage.rests_on]
    return [facts.get(fact.metric) or fact if fact.rule is not None else fact for fact in found]


def _all_errors(facts: Facts) -> Fact:
    current, previous = (sum(getattr(fact, when) or 0.0 for fact in facts.errors) for when in ("current", "previous"))
    return Fact("errors", ERRORS_PREFIX, "errors", "count", -1, current, previous)


def _agrees(word: str, subjects: list[Fact], changed: list[Fact]) -> bool:
    """Every change that is cited must go that way, and at least one thing spoken of."""
    must = [facts for facts in changed if facts.rule is None]
    return all(_goes(word, fact) for fact in must) and any(_goes(word, fact) for fact in subjects)


def _goes(word: str, fact: Fact) -> bool:
    if word.startswith("not "):
        return not _goes(word[4:], fact)
    if word == "flat":
        change = fact.read("delta_pct")
        return fact.previous is not None and (change is None or abs(change.value) < FLAT_PCT)
    sign = fact.direction
    if word in ("worse", "better"):
        sign *= fact.polarity
    return sign > 0 if word in ("up", "better") else sign < 0


# ---- drift


def _drift(passage: Passage, sentence: str, facts: Facts) -> Iterator[Reason]:
    """That something drifted or did not, where the facts say otherwise or nothing."""
    denied = lexicon.NO_DRIFT.search(sentence)
    claimed = None if denied else lexicon.DRIFTED.search(sentence)
    if not (denied or claimed) or verdicts.HEDGE.search(sentence) or is_instruction(passage, sentence):
        return
    measured = [fact for fact in facts.by_id.values() if fact.metric in DRIFTS and fact.current is not None]
    named = mentioned(sentence, facts) & set(DRIFTS)
    moved = [(fact.current or 0.0) >= DRIFT for fact in measured if not named or fact.metric in named]
    if denied and (not moved or any(moved)):
        yield "none of what there is", denied[0]
    if claimed and not any(moved):
        yield "drift that was not measured", claimed[0]


# ---- causes


def _causes(passage: Passage, sentence: str) -> Iterator[Reason]:
    """A cause may be a listed hypothesis worded as one, something to look into, or said to be unknown."""
    if (found := verdicts.UNMEASURED.search(sentence)) and not is_instruction(passage, sentence):
        if not verdicts.IGNORANCE.search(sentence):
            yield "a claim that no metric carries", found[0]
    hypothesis = next((m for pattern in verdicts.HYPOTHESES.values() if (m := pattern.search(sentence))), None)
    asserted = verdicts.ASSERTED_CAUSE.search(sentence) or verdicts.DOWN_SERVICE.search(sentence)
    claim = asserted or hypothesis or verdicts.NAMED_CAUSE.search(sentence)
    if claim is None or verdicts.IGNORANCE.search(sentence):
        return
    if hypothesis is None and verdicts.STATUS_REASON.search(sentence):
        return
    if is_instruction(passage, sentence) and not asserted:
        return
    if not verdicts.HEDGE.search(sentence):
        yield "a cause stated as a fact", claim[0]
    elif hypothesis is None:
        yield "a cause that is not a listed hypothesis", claim[0]

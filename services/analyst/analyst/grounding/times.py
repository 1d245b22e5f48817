"""Which times prose may name: the windows that were measured, each for the figures measured in it, and no other."""

from collections.abc import Iterator
from typing import Final

from analyst.facts.facts import DRIFTS, Facts
from analyst.grounding import lexicon
from analyst.grounding.naming import mentioned
from analyst.grounding.passage import Cited, Passage, Reason, is_instruction
from common.contracts.windows import WINDOW_S, Window

_WINDOW_OF: Final[dict[int, Window]] = {seconds: window for window, seconds in WINDOW_S.items()}


def refused_times(passage: Passage, facts: Facts) -> Iterator[Reason]:
    """Each time that no figure was measured in."""
    for sentence in lexicon.SENTENCE_END.split(passage.text):
        references = passage.references(sentence)
        if references or not is_instruction(passage, sentence):
            if found := lexicon.TIME.search(_without_windows(sentence, facts)):
                yield "a time that was not measured", found[0]
        yield from _other_windows(sentence, references, facts)


def _without_windows(sentence: str, facts: Facts) -> str:
    for window in facts.windows:
        sentence = lexicon.window_mention(window).sub(" ", sentence)
    if facts.reference is not None and (lexicon.DRIFTED.search(sentence) or mentioned(sentence, facts) & set(DRIFTS)):
        length_s = round((facts.reference.end - facts.reference.start).total_seconds())
        if length_s in _WINDOW_OF:
            sentence = lexicon.reference_mention(_WINDOW_OF[length_s]).sub(" ", sentence)
    return lexicon.PER_SECOND.sub(" ", sentence)


def _other_windows(sentence: str, references: list[Cited], facts: Facts) -> Iterator[Reason]:
    measured = {reference.fact.rule.rule.window if reference.fact.rule else facts.window for reference in references}
    for window in sorted(facts.windows):
        if references and window not in measured and lexicon.window_mention(window).search(sentence):
            yield "another window than the figure's", window

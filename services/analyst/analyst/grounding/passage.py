"""One text of a draft with the facts behind it, as the parts of the checker see it; it judges nothing."""

from dataclasses import dataclass

from analyst.facts.fact import Fact
from analyst.grounding import lexicon
from analyst.report.models import Reading

Reason = tuple[str, str]
"""Why a passage is refused, and the words that it is refused for."""


@dataclass(frozen=True, slots=True)
class Cited:
    """What a reference resolves to."""

    fact: Fact
    reading: Reading
    value: float

    @property
    def is_delta(self) -> bool:
        return self.reading in ("delta_abs", "delta_pct")


@dataclass(frozen=True, slots=True)
class Passage:
    """One text of a draft. `evidence` is None where the place lists none; `rests_on` is what it cites, there or in the
    text; `after` is the text that a reader has just read: a finding's title, a recommendation's action.
    """

    place: str
    text: str
    rests_on: list[Cited]
    cited: dict[str, Cited]
    evidence: list[str] | None
    is_action: bool
    after: str = ""

    def references(self, text: str) -> list[Cited]:
        return [self.cited[name] for name in lexicon.REFERENCE.findall(text) if name in self.cited]


def is_instruction(passage: Passage, sentence: str) -> bool:
    """Whether it tells to do something, and so claims nothing."""
    return passage.is_action and lexicon.IMPERATIVE.match(sentence.strip()) is not None

"""What stands beside a reference: a figure is shown with its sign and unit, so that no other may be there, nor a noun.

It knows which words may follow a figure, not which may not: an unknown word is refused.
"""

import re
from collections.abc import Iterator
from typing import Final

from analyst.facts.facts import ERRORS_PREFIX, LABEL_PREFIX
from analyst.grounding import lexicon
from analyst.grounding.passage import Cited, Passage, Reason

_NEXT: Final = re.compile(r"\{(e[0-9]{1,3})\}[\")]*\s+([A-Za-z][\w'-]*)")
_SHARED: Final = {
    "error_rate": r"requests|traffic|calls|volume",
    "limited_rate": r"requests|traffic|calls|volume",
    LABEL_PREFIX: r"predictions|answers",
}
_COUNTED: Final = {"requests": r"requests", "predictions": r"predictions|answers|answered (?:requests|predictions)"}
_TIMED_OUT: Final = r"timeouts?|time-outs?|requests (?:that )?timed out|timed out"


def refused_neighbours(passage: Passage) -> Iterator[Reason]:
    """Each thing beside a reference that would make its figure say something else."""
    for sentence in lexicon.SENTENCE_END.split(passage.text):
        if found := lexicon.TOUCHED.search(sentence):
            yield "something touches a reference", found[0].strip()
        for match in _NEXT.finditer(sentence):
            reference = passage.cited.get(match[1])
            if reference is not None and not _may_follow(reference, match[2], sentence[match.start(2) :]):
                yield "a unit or noun after a reference", match[2]


def _may_follow(reference: Cited, word: str, rest: str) -> bool:
    if word.lower() == "of":
        return _follows(rf"of (?:all |the |these )*(?:{_share_of(reference)})", rest)
    return lexicon.AFTER_FIGURE.fullmatch(word) is not None or _follows(_counted_by(reference), rest)


def _follows(pattern: str, rest: str) -> bool:
    return bool(pattern) and re.match(rf"(?:{pattern})\b", rest, re.IGNORECASE) is not None


def _share_of(reference: Cited) -> str:
    """What a share is a share of; what matches nothing for any other figure."""
    metric = reference.fact.metric
    key = LABEL_PREFIX if metric.startswith(LABEL_PREFIX) else metric
    return _SHARED.get(key, r"(?!)") if not reference.is_delta else r"(?!)"


def _counted_by(reference: Cited) -> str:
    """What a count counts; empty for any other figure."""
    metric = reference.fact.metric
    if reference.fact.unit != "count" or reference.reading == "delta_pct":
        return ""
    if not metric.startswith(ERRORS_PREFIX):
        return _COUNTED.get(metric, "")
    name = re.escape(metric.removeprefix(ERRORS_PREFIX).replace("_", " "))
    own = rf"{name} (?:outcomes?|errors?|failures?|requests?|answers?)"
    return f"{own}|{_TIMED_OUT}" if name == "timeout" else own

"""Whether prose calls each figure what it is: a value of now, one of the window before, or a limit.

The words nearest to a figure count: those right behind it, else those right before it, else the last in its clause.
"""

import re
from collections.abc import Iterator
from typing import Final, Literal

from analyst.facts.facts import Facts
from analyst.grounding import lexicon
from analyst.grounding.naming import mentioned
from analyst.grounding.passage import Cited, Passage, Reason

_Called = Literal["now", "before", "limit"]

_FIGURES: Final = re.compile(r"\{e[0-9]{1,3}\}(?:(?:, and|, or|,| and| or) \{e[0-9]{1,3}\})*")
_BEFORE: Final = (
    r"before|beforehand|previous(?:ly)?|prior|preceding|earlier|former(?:ly)?|used to be|had been|originally|initially"
)
_NOW: Final = (
    r"now|current(?:ly)?|presently|at present|at the moment|this (?:window|hour|time)|(?:in|over|during) the last"
)
_END: Final = r"(?=\s*(?:[.,;:!?)]|$|(?:and|but|to|versus|against|compared)\b))"
_PATTERNS_BEHIND: Final[tuple[tuple[_Called, str], ...]] = (
    ("before", r"\)? (?:in|during|over|for|of) (?:the |that )?(?:previous|prior|preceding)\b(?: \w+)?"),
    ("before", r"\)? (?:in|during|over|for|of) (?:the |that )?\w+ (?:before|earlier)\b"),
    ("before", rf"\)? (?:the \w+ )?(?:before|beforehand|previously|earlier|formerly){_END}"),
    ("now", r"\)? (?:in|during|over|for|of) (?:this|the current) \w+"),
    ("now", rf"\)? (?:now|currently|at present){_END}"),
    ("limit", rf"\)?,? (?:as )?(?:the |its |their )?(?:configured |upper |lower )?{lexicon.LIMIT.pattern}"),
)
_BEHIND: Final = tuple((called, re.compile(pattern, re.IGNORECASE)) for called, pattern in _PATTERNS_BEHIND)
_FROM: Final = re.compile(r"\bfrom \(?$", re.IGNORECASE)
_REACHED: Final = re.compile(
    r"(?<!compared )(?<!relative )(?<!close )(?<!similar )(?<!equal )(?<!closer )\b(?:to|reach(?:ed|es|ing)) $",
    re.IGNORECASE,
)
_NO_VERB: Final = (
    r"(?: (?!(?:is|are|was|were|be|has|have|had|by|and|or|at|as|that|which|with|when|where|while|because|since"
    r"|breach\w*|exceed\w*)\b)[\w'-]+){0,8}?"
)
_LIMIT_OF: Final = re.compile(rf"{lexicon.LIMIT.pattern}(?:{_NO_VERB} of |(?:{_NO_VERB},)? )\(?$", re.IGNORECASE)
_LIMIT_IS: Final = re.compile(
    rf"(?P<led>\b(?:above|over|below|under|beyond|past|within|near|to|from|at|of|[a-z]+(?:ed|es|ing)) )?"
    rf"(?:(?:the|its|their|a|this|that|configured|upper|lower) )*{lexicon.LIMIT.pattern}{_NO_VERB}"
    r" (?:is|are|was|were|stands|sits|lies|equals)(?: (?:now|currently|still|set|to|at|only))*,? \(?$",
    re.IGNORECASE,
)
_MARK: Final = re.compile(rf"\b(?:(?P<before>{_BEFORE})|(?P<now>{_NOW}))\b", re.IGNORECASE)
_COMPARED: Final = re.compile(
    r"\b(?:than|compar(?:ed|ison) (?:with|to)|against|versus|vs\.?|relative to|like|unlike|since|from|over|as) "
    r"(?:(?:it|they|that|those) (?:was|were|of|in) |in |during |of )?"
    r"(?:before|earlier|previously|(?:the |its |their )?(?:(?:previous|prior|preceding|earlier|former)(?: \w+)?"
    r"|\w+ (?:before|earlier)))\b",
    re.IGNORECASE,
)
_OPENING: Final = re.compile(
    rf"\s*(?:and |but )?(?:(?:in|during|over) the )?(?:\w+ )?(?:{_BEFORE})(?: \w+)?(?: that)?\s*", re.IGNORECASE
)
_IS: Final = re.compile(r"\b(?:is|are|stands?|sits?|lies|remains?)(?: still)?(?: at)? \(?$", re.IGNORECASE)


def refused_readings(passage: Passage, facts: Facts) -> Iterator[Reason]:
    """Each figure that the words beside it call something else."""
    for sentence in lexicon.SENTENCE_END.split(passage.text):
        start, last = 0, None
        for figures in _FIGURES.finditer(sentence):
            front = sentence[start : figures.start()]
            called, start = _behind(sentence, figures.end())
            for reference in passage.references(figures[0]):
                said = called or _in_front(front, reference)
                if said is None and reference.reading == "previous":
                    said = last  # "before, the one was {e1} and the other {e2}"
                yield from _miscalled(reference, front, said, facts)
                last = said


def _miscalled(reference: Cited, front: str, called: _Called | None, facts: Facts) -> Iterator[Reason]:
    match reference.reading:
        case "current":
            if called == "before":
                yield "a value of this window in the window before", front.strip()
            elif called == "limit":
                yield "a value called a limit", front.strip()
        case "previous":
            if called in ("now", "limit") or not (called or lexicon.BEFORE.search(front)):
                yield "a value of the window before, not called so", front.strip()
        case "threshold":
            if called != "limit" and (called or mentioned(front, facts)) and not lexicon.LIMIT.search(front):
                yield "a limit, not called so", front.strip()


def _behind(sentence: str, end: int) -> tuple[_Called | None, int]:
    """What the words behind a figure call it, and where these end."""
    for called, pattern in _BEHIND:
        if match := pattern.match(sentence, end):
            return called, match.end()
    return None, end


def _in_front(front: str, reference: Cited) -> _Called | None:
    *leading, clause = lexicon.CLAUSE_END.split(front)
    is_limit = _LIMIT_IS.search(clause)
    if _LIMIT_OF.search(front) or (is_limit and not is_limit["led"]):
        return "limit"
    if _FROM.search(clause):
        return "before"
    if _REACHED.search(clause):
        return "now"
    marks = list(_MARK.finditer(clause if reference.reading == "previous" else _COMPARED.sub(" ", clause)))
    if marks:
        return "before" if marks[-1]["before"] else "now"
    if len(leading) == 1 and _OPENING.fullmatch(leading[0]):
        return "before"
    return "now" if reference.reading == "previous" and _IS.search(clause) else None

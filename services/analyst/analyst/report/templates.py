"""The sentence of each observation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from analyst.facts.checks import Kind, Observation
from analyst.facts.fact import Fact
from analyst.facts.facts import Facts, figure
from analyst.report.format import show
from analyst.report.models import Figure, Reading

READINGS: Final[tuple[Reading, ...]] = ("current", "previous", "delta_abs", "delta_pct", "threshold")


class FigureBook:
    """Every figure of a report, numbered f1, f2, … in the order of the facts."""

    def __init__(self, facts: Facts) -> None:
        self.by_id: dict[str, Figure] = {}
        self._ids: dict[tuple[str, Reading], str] = {}
        for fact in facts.by_id.values():
            for reading in READINGS:
                figure_id = f"f{len(self.by_id) + 1}"
                if (found := figure(figure_id, fact, reading)) is not None:
                    self.by_id[figure_id] = found
                    self._ids[fact.id, reading] = figure_id

    def find(self, fact: Fact, reading: Reading) -> Figure | None:
        figure_id = self._ids.get((fact.id, reading))
        return None if figure_id is None else self.by_id[figure_id]


@dataclass(frozen=True, slots=True)
class Statement:
    """A title, a sentence, and the ids of the figures in it."""

    title: str
    detail: str
    evidence: list[str]


def state(observation: Observation, book: FigureBook) -> Statement:
    """Return the observation in words."""
    return _TEMPLATES[observation.kind](observation.fact, book)


def _breach(fact: Fact, book: FigureBook) -> Statement:
    current, limit = _figures(book, fact, "current", "threshold")
    side = "above" if fact.rule is not None and fact.rule.rule.above is not None else "below"
    window = fact.rule.rule.window if fact.rule is not None else ""
    detail = f"Over the last {window} the {fact.name} is {show(current)}, {side} its threshold of {show(limit)}."
    return Statement(f"{_upper(fact.name)} {side} its threshold", detail, [current.id, limit.id])


def _relative_change(fact: Fact, book: FigureBook) -> Statement:
    return _change(fact, book, "delta_pct")


def _absolute_change(fact: Fact, book: FigureBook) -> Statement:
    return _change(fact, book, "delta_abs")


def _change(fact: Fact, book: FigureBook, reading: Reading) -> Statement:
    previous, current, change = _figures(book, fact, "previous", "current", reading)
    verb = "rose" if change.value > 0 else "fell"
    detail = f"The {fact.name} {verb} from {show(previous)} to {show(current)} ({show(change)})."
    return Statement(f"{_upper(fact.name)} {verb}", detail, [previous.id, current.id, change.id])


def _drift(fact: Fact, book: FigureBook) -> Statement:
    (drift,) = _figures(book, fact, "current")
    return Statement(_upper(fact.name), f"Against the reference, the {fact.name} is {show(drift)}.", [drift.id])


def _tail(fact: Fact, book: FigureBook) -> Statement:
    (ratio,) = _figures(book, fact, "current")
    return Statement("Long latency tail", f"The p99 latency is {show(ratio)} the median.", [ratio.id])


def _error_class(fact: Fact, book: FigureBook) -> Statement:
    (count,) = _figures(book, fact, "current")
    return Statement(_upper(fact.name), f"{_upper(fact.name)}: {show(count)}.", [count.id])


def _route_errors(fact: Fact, book: FigureBook) -> Statement:
    (share,) = _figures(book, fact, "current")
    return Statement(f"Errors on {fact.route}", f"{fact.route} has {show(share)} of the errors.", [share.id])


_TEMPLATES: Final[dict[Kind, Callable[[Fact, FigureBook], Statement]]] = {
    "breach": _breach,
    "latency_change": _relative_change,
    "rate_change": _absolute_change,
    "volume_change": _relative_change,
    "explanation": _relative_change,
    "confidence_change": _absolute_change,
    "label_shift": _absolute_change,
    "drift": _drift,
    "tail": _tail,
    "error_class": _error_class,
    "route_errors": _route_errors,
}


def _figures(book: FigureBook, fact: Fact, *readings: Reading) -> list[Figure]:
    found = [book.find(fact, reading) for reading in readings]
    return [one for one in found if one is not None]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]

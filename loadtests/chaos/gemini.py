"""A Gemini on loopback that keeps when it was called, and what the analyst promised about that."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from fake_gemini import GOOD, Script, Step

from chaos.windows import Span

CALL_S: Final = 0.3
PER_MINUTE: Final = 6
TTL_S: Final = 10
FRESH_SHARE: Final = 0.8
FORGOTTEN_S: Final = 2.5  # an append-only file synced every second may lose so much when Redis is killed
SLACK_S: Final = 1.0  # the quota's window is 61 s, and calls arrive a moment after their slot was taken
_REPAIR: Final = "your_last_answer_was_malformed"


@dataclass(frozen=True, slots=True)
class Call:
    """One call that arrived, and what it got."""

    at_s: float
    step: Step
    is_repair: bool


@dataclass
class RecordingScript(Script):
    """Well-behaved until `steps` are given."""

    arrivals: list[tuple[float, Step]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.text, self.delay_s = GOOD, CALL_S

    def next(self) -> Step:
        step = super().next()
        self.arrivals.append((time.time(), step))
        return step

    def recorded(self) -> list[Call]:
        """All calls so far, in order."""
        return [
            Call(at_s, step, _REPAIR in str(request))
            for (at_s, step), request in zip(self.arrivals, self.requests, strict=False)
        ]


def over_quota(calls: Sequence[Call], deaths: Sequence[float], stops: Sequence[Span]) -> str:
    """More calls in some minute than the quota grants; a quota that Redis forgot in a crash may be granted again.

    `deaths`: when Redis was killed. `stops`: the analyst stood still, perhaps between a slot and its call: the one
    call in hand may come late.
    """
    for first in calls:
        minute = Span(first.at_s, first.at_s + 60)
        held = [call for call in calls if minute.start_s <= call.at_s < minute.end_s - SLACK_S]
        forgotten = sum(any(0 <= death - call.at_s <= FORGOTTEN_S for death in deaths) for call in held)
        late = sum(any(stop.start_s <= call.at_s <= stop.end_s + SLACK_S for call in held) for stop in stops)
        if len(held) > PER_MINUTE + forgotten + late:
            return f"{len(held)} Gemini calls within a minute, {PER_MINUTE} are granted"
    return ""


def flown_twice(calls: Sequence[Call], excused: Sequence[Span]) -> str:
    """A call though the report of the one before was still fresh, or under way; there is one report in this run.

    `excused`: Redis or the analyst was disturbed, so a flight may start again.
    """
    for before, after in pairwise(calls):
        if before.step != "ok" or after.is_repair or before.is_repair:
            continue
        gap = Span(before.at_s, after.at_s)
        if any(span.start_s < gap.end_s and gap.start_s < span.end_s for span in excused):
            continue
        if after.at_s - before.at_s < TTL_S * FRESH_SHARE:
            return f"two Gemini calls {after.at_s - before.at_s:.1f} s apart for one report that lasts {TTL_S} s"
    return ""

"""A Gemini on loopback that records its calls, and checks of the quota and the single flight."""

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
FORGOTTEN_S: Final = 2.5  # an append-only file synced every second may lose this much when Redis is killed
SLACK_S: Final = 1.0  # the quota's window is 61 s; calls arrive a moment after their slot was granted
_REPAIR: Final = "your_last_answer_was_malformed"


@dataclass(frozen=True, slots=True)
class Call:
    """One call and its response."""

    at_s: float
    step: Step
    is_repair: bool


@dataclass
class RecordingScript(Script):
    """Responds normally unless `steps` are set."""

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
    """Return minutes with more calls than the quota. Slots that Redis lost in a crash may be granted again.

    `deaths`: when Redis was killed. `stops`: when the analyst was paused; a call whose slot it held may come late.
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
    """Return calls made while the previous report was fresh or being written. This run has one report.

    `excused`: when Redis or the analyst was disturbed, so that a computation may restart.
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

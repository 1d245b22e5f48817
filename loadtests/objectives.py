"""Compares the results of a load test with its objectives. Pure functions.

Limits are checked twice. In the generator's log a breach is certain if more than the limit was both sent and answered
within one window, whenever in between each request was admitted. In the same way a rejection is certainly wrong. In the
database's log, which has one clock, every window that ends at an admission is counted.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from users.answers import Answer

MICROS: Final = 1_000_000

Admissions = Mapping[bytes, Counter[int]]
"""By key: times in microseconds of the database's clock, and numbers of admissions."""


@dataclass(frozen=True, slots=True)
class Objective:
    """An objective and its result. `wanted` and `found` are for display."""

    name: str
    wanted: str
    found: str
    is_met: bool


@dataclass(frozen=True, slots=True)
class Breach:
    """More than `limit` within the window that starts at `start_s`."""

    who: str
    admitted: int
    limit: int
    start_s: float


def breaches_in_answers(answers: Iterable[Answer], limit: int, window_s: float) -> list[Breach]:
    """Return at most one certain breach of `limit` per address."""
    admitted: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        if answer.status == 200:
            admitted[answer.address].append(answer)
    worst = (_worst(who, found, limit, window_s) for who, found in sorted(admitted.items()))
    return [breach for breach in worst if breach.admitted > limit]


def _worst(who: str, answers: Sequence[Answer], limit: int, window_s: float) -> Breach:
    """Return the window, starting when a request was sent, with the most certain admissions."""

    def certain(start_s: float) -> int:
        end_s = start_s + window_s
        return sum(one.units for one in answers if one.sent_s >= start_s and one.received_s < end_s)

    admitted, start_s = max((certain(answer.sent_s), answer.sent_s) for answer in answers)
    return Breach(who, admitted, limit, start_s)


def wrongly_refused(answers: Iterable[Answer], limit: int, window_s: float) -> list[Answer]:
    """Return rejections that are certainly wrong: even with all possible charges the request fitted."""
    by_address: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_address[answer.address].append(answer)
    return [
        refused
        for found in by_address.values()
        for refused in found
        if refused.status == 429 and _at_most(found, refused, window_s) + refused.units <= limit
    ]


def _at_most(answers: Iterable[Answer], refused: Answer, window_s: float) -> int:
    """Return the most that could have been charged when `refused` was decided."""
    from_s = refused.sent_s - window_s
    return sum(
        one.units
        for one in answers
        if one.status != 429 and one.received_s >= from_s and one.sent_s <= refused.received_s
    )


def breaches_in_admissions(admissions: Admissions, limit: int, window_us: int) -> list[Breach]:
    """Return at most one breach per key of the limiter's log, over windows (t - window, t]."""
    found = []
    for key, times in admissions.items():
        admitted, end_us = max((_in_window(times, end_us, window_us), end_us) for end_us in times)
        if admitted > limit:
            found.append(Breach(key.hex()[:12], admitted, limit, (end_us - window_us) / MICROS))
    return found


def _in_window(times: Mapping[int, int], end_us: int, window_us: int) -> int:
    return sum(n for at_us, n in times.items() if end_us - window_us < at_us <= end_us)


def merged(seen: dict[bytes, Counter[int]], key: bytes, log_us: Iterable[int]) -> None:
    """Add a sample of a key's log. Samples closer together than a window miss no admissions."""
    seen.setdefault(key, Counter())
    seen[key] |= Counter(log_us)


def not_stored_once(answers: Iterable[Answer], rows: Mapping[str, int]) -> list[str]:
    """Return the ids of requests answered with 200 whose texts are not each stored exactly once."""
    return [
        answer.request_id
        for answer in answers
        if answer.status == 200 and rows.get(answer.request_id, 0) != answer.units
    ]

"""The schedule of faults, determined by a seed and a length."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final, Literal

from chaos.system.stack import SERVICES, STORES, Service, Store

Action = Literal["kill", "stop", "restart", "slow", "cut", "hang", "delay", "fill", "gemini"]
Target = Service | Store

WARM_UP_S: Final = 15.0
COOL_DOWN_S: Final = 45.0  # processes restarted by the last fault must live long enough to be checked
SLOT_S: Final = 7.5
PAIRS_EVERY: Final = 4  # slots between moments with two faults
ALONE: Final = ("restart", "edge-limiter")  # never paired, so that draining can be checked
WANDER: Final = 0.6  # of a slot: random offset of a fault's start

# Seconds from the end of a fault until everything is ready and a prediction succeeds: several times what two idle
# cores need.
OBJECTIVE_S: Final[dict[Action, float]] = {
    "kill": 5.0,
    "restart": 10.0,
    "stop": 5.0,
    "slow": 5.0,
    "cut": 5.0,
    "hang": 5.0,
    "delay": 5.0,
    "fill": 5.0,
    "gemini": 5.0,
}
_LENGTH_S: Final[dict[Action, tuple[float, float]]] = {
    "kill": (0.0, 0.0),
    "restart": (0.0, 0.0),
    "stop": (1.5, 4.0),
    "slow": (2.0, 4.0),
    "cut": (1.0, 3.5),
    "hang": (1.0, 3.5),
    "delay": (2.0, 4.0),
    "fill": (0.0, 0.0),
    "gemini": (3.0, 5.0),
}
# longer than the limit's window, so that a window lies within one outage
_LONG_S: Final[dict[tuple[Action, Target], tuple[float, float]]] = {("hang", "postgres"): (12.0, 13.0)}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that starts `at_s` seconds after the load, or when the previous one is over.

    Faults with the same time happen together.
    """

    at_s: float
    action: Action
    target: Target
    length_s: float

    def __str__(self) -> str:
        length = f" for {self.length_s:.1f} s" if self.length_s else ""
        return f"{self.action} {self.target}{length}"


def schedule(seed: int, minutes: float) -> list[Fault]:
    """Return all combinations in random order, repeated to fill the time, sometimes two at once."""
    chance = random.Random(seed)
    slots = max(1, int((minutes * 60 - WARM_UP_S - COOL_DOWN_S) / SLOT_S))
    kinds = _endless(chance)
    return [fault for slot in range(slots) for fault in _of_slot(chance, slot, *next(kinds))]


def together(faults: list[Fault]) -> list[list[Fault]]:
    """Return the faults grouped by time."""
    return [list(group) for _, group in groupby(faults, key=lambda fault: fault.at_s)]


def combinations() -> list[tuple[Action, Target]]:
    """Return every combination of fault and target."""
    everywhere: tuple[Action, ...] = ("kill", "stop", "restart", "slow")
    at_the_socket: tuple[Action, ...] = ("cut", "hang", "delay")
    targets: tuple[Target, ...] = (*SERVICES, *STORES)
    return [
        *((action, target) for action in everywhere for target in targets),
        *((action, store) for action in at_the_socket for store in STORES),
        ("fill", "valkey"),
        ("gemini", "analyst"),
    ]


def _endless(chance: random.Random) -> Iterator[tuple[Action, Target]]:
    while True:
        kinds = combinations()
        chance.shuffle(kinds)
        yield from kinds


def _of_slot(chance: random.Random, slot: int, action: Action, target: Target) -> Iterator[Fault]:
    at_s = round(WARM_UP_S + (slot + chance.uniform(0, WANDER)) * SLOT_S, 2)
    yield Fault(at_s, action, target, _length_s(chance, action, target))
    if slot % PAIRS_EVERY == PAIRS_EVERY - 1 and (action, target) != ALONE:
        second, other = chance.choice([kind for kind in combinations() if kind[1] != target])
        yield Fault(at_s, second, other, _length_s(chance, second, other))


def _length_s(chance: random.Random, action: Action, target: Target) -> float:
    return round(chance.uniform(*_LONG_S.get((action, target), _LENGTH_S[action])), 2)

"""Sorts stream entries into events to store and dead letters. Pure functions."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import ValidationError

from common.contracts.events import EVENT_ADAPTER, CounterEvent, PredictionEvent

Reason = Literal["malformed", "too_old", "in_future", "refused"]

FUTURE_US: Final = 86_400_000_000  # events further in the future are rejected: their producer's clock is wrong


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the stream. `payload` is None if it has no event field."""

    id: str
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class Arrival:
    """An entry that holds a valid event."""

    entry: Entry
    event: PredictionEvent | CounterEvent


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry that is never counted, and the reason."""

    entry: Entry
    reason: Reason


def sort_entries(entries: Iterable[Entry], *, now_us: int, oldest_us: int) -> tuple[list[Arrival], list[DeadLetter]]:
    """Split `entries` into valid events, and those that are malformed, older than `oldest_us` or in the future."""
    arrivals: list[Arrival] = []
    dead: list[DeadLetter] = []
    for entry in entries:
        event = _parse(entry.payload)
        if event is None:
            dead.append(DeadLetter(entry, "malformed"))
        elif event.at_us < oldest_us:
            dead.append(DeadLetter(entry, "too_old"))
        elif event.at_us > now_us + FUTURE_US:
            dead.append(DeadLetter(entry, "in_future"))
        else:
            arrivals.append(Arrival(entry, event))
    return arrivals, dead


def _parse(payload: bytes | None) -> PredictionEvent | CounterEvent | None:
    if payload is None:
        return None
    try:
        event = EVENT_ADAPTER.validate_json(payload)
    except ValidationError:
        return None
    if isinstance(event, CounterEvent) and event.outcome == "ok":
        return None  # each answered request has an event; only failures come as counts
    return event

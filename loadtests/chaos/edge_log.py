"""Reads from the edge's log when its limits were not exact."""

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from chaos.windows import Span

_BEGIN: Final = "rate limiter degraded"
_END: Final = "rate limiter exact again"
_DEATH: Final = ""


def degraded(lines: Iterable[str], deaths: Sequence[float], until_s: float) -> list[Span]:
    """Return the times without the store. A killed edge logs no end; the next process starts without an outage."""
    found: list[Span] = []
    since_s: float | None = None
    for at_s, event in sorted([*_events(lines), *((death, _DEATH) for death in deaths)]):
        if event == _BEGIN and since_s is None:
            since_s = at_s
        elif event != _BEGIN and since_s is not None:
            found.append(Span(since_s, at_s))
            since_s = None
    return found if since_s is None else [*found, Span(since_s, until_s)]


def read(path: Path) -> list[str]:
    """Return the lines of a log and of its rotated part."""
    parts = [path.with_name(path.name + ".1"), path]
    return [line for part in parts if part.exists() for line in part.read_text(errors="replace").splitlines()]


def _events(lines: Iterable[str]) -> Iterator[tuple[float, str]]:
    for line in lines:
        try:
            said = json.loads(line)
            if said["event"] in (_BEGIN, _END):
                yield datetime.fromisoformat(said["timestamp"]).timestamp(), said["event"]
        except (ValueError, KeyError, TypeError):
            continue

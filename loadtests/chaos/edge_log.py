"""When the edge itself says that its limits were not exact: read from its log, beside the times of the faults."""

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
    """The stretches without the store. An edge that dies says nothing more, and the next one begins anew."""
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
    """The lines of a log and of the part that was put aside when it grew."""
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

"""Restarts a service when a file that it is made of changes; looks at times of modification, once a second."""

import asyncio
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from launcher.keeper import Keeper
from launcher.logs import Console

SOURCES = {".py", ".lua", ".json", ".md", ".html", ".css", ".js", ".svg"}
_INTERVAL_S = 1.0


async def restart_on_change(keepers: Sequence[Keeper], console: Console) -> None:
    """Never ends by itself."""
    seen = [modified(keeper.service.sources) for keeper in keepers]
    while True:
        await asyncio.sleep(_INTERVAL_S)
        for place, keeper in enumerate(keepers):
            now = modified(keeper.service.sources)
            if changed := sorted(path.name for path, _ in now.items() ^ seen[place].items()):
                console.say("source changed", name=keeper.service.name, file=changed[0])
                keeper.restart()
            seen[place] = now


def modified(folders: Iterable[Path]) -> dict[Path, int]:
    """Every source file under the folders and when it was last written, in nanoseconds."""
    times = {}
    for path in _files(folders):
        if path.suffix in SOURCES:
            with suppress(OSError):  # an editor replaces it right now
                times[path] = path.stat().st_mtime_ns
    return times


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for inside, _, names in os.walk(folder):  # which passes over what is removed meanwhile; Path.rglob raises
            yield from (Path(inside, name) for name in names)

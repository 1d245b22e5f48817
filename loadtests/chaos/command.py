"""Shared by `make chaos` and `make soak`: options, exit statuses, state folders and background tasks."""

import argparse
import asyncio
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

HOLDS, BROKEN, INCONCLUSIVE = 0, 1, 2  # exit statuses
DEFAULT_PORT_BASE: Final = 9700


def at_least(smallest: float) -> Callable[[str], float]:
    """Return an argparse type: a finite number of at least `smallest`."""

    def number(said: str) -> float:
        value = float(said)
        if not math.isfinite(value) or value < smallest:
            raise argparse.ArgumentTypeError(f"must be at least {smallest:g}")
        return value

    return number


def add_port_base(parser: argparse.ArgumentParser) -> None:
    default = int(os.environ.get("SLUICE_PORT_BASE") or DEFAULT_PORT_BASE)
    parser.add_argument("--port-base", type=int, default=default, help=f"uses +0 to +3, +1000 to +1003 ({default})")


def new_folder(name: str) -> Path:
    """Create a folder below .cache."""
    cache = Path.cwd() / ".cache"
    cache.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))


async def ended(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    """Cancel all tasks. Raises the error of one that had failed, because its observations are incomplete."""
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
            raise result

"""What the two commands share: their options and the folder that holds a run's state."""

import argparse
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

DEFAULT_PORT_BASE: Final = 9700


def at_least(smallest: float) -> Callable[[str], float]:
    """A type of argparse: a finite number from `smallest` on."""

    def number(said: str) -> float:
        value = float(said)
        if not math.isfinite(value) or value < smallest:
            raise argparse.ArgumentTypeError(f"must be at least {smallest:g}")
        return value

    return number


def add_port_base(parser: argparse.ArgumentParser) -> None:
    default = int(os.environ.get("SLUICE_PORT_BASE") or DEFAULT_PORT_BASE)
    parser.add_argument("--port-base", type=int, default=default, help=f"ports +0 to +3, +1000 to +1003 ({default})")


def new_folder(name: str) -> Path:
    """Below .cache, which git does not see."""
    cache = Path.cwd() / ".cache"
    cache.mkdir(exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=cache))

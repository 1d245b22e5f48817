"""Write requirements/*.txt: exact versions with hashes for Python 3.11 to 3.14 on Linux and macOS.

All files come from one resolution, so a package has one version everywhere. Present versions stay unless you pass
--upgrade or --upgrade-package NAME.
"""

import re
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
SERVICES = ("edge-limiter", "inference", "metrics", "analyst")
OURS = ("common", *SERVICES, "launcher")


def main(options: Sequence[str]) -> None:
    sources = _sources()
    versions = _resolve(sources["tools"], options)
    common = _compile(sources["common"], versions)
    locked = {"common": common}
    for name in SERVICES:
        locked[name] = "-r common.txt\n" + _compile(sources[name], versions, without=installed_everywhere(common))
    for name in ("launcher", "build", "uv"):
        locked[name] = _compile(sources[name], versions)
    running = set().union(*(installed_everywhere(locked[name]) for name in (*OURS, "build")))
    locked["test"] = _compile(sources["test"], versions, without=running)
    locked["tools"] = _compile(sources["tools"], versions, without=running | installed_everywhere(locked["test"]))
    for name, text in locked.items():
        (REQUIREMENTS / f"{name}.txt").write_text(f"# Written by `make lock`.\n{text}")


def _sources() -> dict[str, str]:
    """What each file is resolved from, as the text of a requirements file."""
    sources = {name: f"-e ./libs/common\n-e ./services/{name}\n" for name in SERVICES}
    sources |= {"common": "-e ./libs/common\n", "launcher": "-e ./deploy/local\n"}
    sources |= {name: f"-r requirements/{name}.in\n" for name in ("build", "uv")}
    both_sdks = "-e ./services/analyst[generativeai]\n"
    sources["test"] = "".join(sources.values()) + both_sdks + "-r requirements/test.in\n"
    sources["tools"] = sources["test"] + "-r requirements/tools.in\n"
    return sources


def _resolve(source: str, options: Sequence[str]) -> Path:
    """Resolve everything together; versions in the present files are preferred."""
    path = ROOT / ".cache" / "lock.txt"
    path.parent.mkdir(exist_ok=True)
    present = "".join(file.read_text() for file in sorted(REQUIREMENTS.glob("*.txt")))
    path.write_text(re.sub("^-r .*\n", "", present, flags=re.MULTILINE))
    _uv(source, "--output-file", str(path), *options)
    return path


def _compile(source: str, versions: Path, without: Collection[str] = ()) -> str:
    omitted = [option for name in sorted(without) for option in ("--no-emit-package", name)]
    text = _uv(source, "--constraint", str(versions), *omitted)
    return re.sub("^#.*\n?", "", text, flags=re.MULTILINE).strip() + "\n"


def _uv(source: str, *options: str) -> str:
    omitted = [option for name in OURS for option in ("--no-emit-package", f"sluice-{name}")]
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
    command += ["--generate-hashes", "--no-header", "--no-annotate", *omitted, *options, "-"]
    return subprocess.run(command, cwd=ROOT, input=source, stdout=subprocess.PIPE, text=True, check=True).stdout


def installed_everywhere(requirements: str) -> set[str]:
    """Return what is installed everywhere: a package for Windows alone may be needed by others elsewhere."""
    names = r"^([a-z0-9][a-z0-9.-]*)(?:\[[a-z0-9,-]*\])?==(?!.*win32)"
    return set(re.findall(names, requirements, re.MULTILINE))


if __name__ == "__main__":
    main(sys.argv[1:])

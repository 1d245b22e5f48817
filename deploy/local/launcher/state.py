"""The state folder of one running system: its owner, its secrets, and the launcher that uses it now."""

import fcntl
import json
import os
import pwd
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parents[3]
STATE = ROOT / ".sluice"
_RETRY_S = 0.01


class StateError(Exception):
    """The state folder cannot be used; the message names the cure."""


@dataclass(frozen=True, slots=True)
class Running:
    """The launcher that uses the folder. `ops` maps its services to the host and port of their `/readyz`.

    The URL is empty when only the stores run.
    """

    pid: int
    url: str
    ops: dict[str, tuple[str, int]] = field(default_factory=dict)


STARTING = Running(pid=0, url="")


def claim(folder: Path) -> Path:
    """Create the folder, or check that it is ours. It is private, but root lets PostgreSQL's user pass through."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
        if owner == os.geteuid():
            folder.chmod(0o711 if owner == 0 else 0o700)
            return folder
    except PermissionError as error:
        raise StateError(f"{error.filename} cannot be accessed. Check who owns {folder.parent}.") from error
    raise StateError(
        f"{folder} belongs to {_user_name(owner)}, and this is {_user_name(os.geteuid())}. "
        f"Continue as {_user_name(owner)}, or delete it and its data: sudo rm -rf '{folder}'"
    )


@contextmanager
def held(folder: Path, mine: Running) -> Iterator[None]:
    """Hold the folder's lock, which ends with this process; StateError if another launcher has it."""
    with (folder / "launcher.lock").open("a+") as lock:
        while not _locked(lock):
            if (running := holder(folder)) is not None:
                raise StateError(_already_running(running))
            time.sleep(_RETRY_S)
        lock.truncate(0)
        lock.write(json.dumps(asdict(mine)))
        lock.flush()
        yield


def holder(folder: Path) -> Running | None:
    """Return the launcher that runs on this folder now."""
    try:
        lock = (folder / "launcher.lock").open()
    except FileNotFoundError:
        return None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _parse(lock.read())
    return None


def kept_secret(path: Path) -> str:
    """Return the secret in `path`. The first call creates it, readable only by its owner and safe from a power cut."""
    if not path.exists():
        draft = path.with_name(f".{path.name}.new")
        draft.unlink(missing_ok=True)
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(24))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    return path.read_text()


def secret_file(state: Path, name: str) -> Path:
    return state / name.lower().replace("_", "-")


def _locked(lock: TextIO) -> bool:
    """Try to lock. This also fails for the moment in which another process calls `holder`."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _parse(text: str) -> Running:
    try:
        return Running(**json.loads(text))
    except (ValueError, TypeError):  # the holder has not written yet, or is of another version
        return STARTING


def _already_running(running: Running) -> str:
    if not running.pid:
        return "Another launcher is starting or stopping the system."
    what = f"Sluice already runs at {running.url}" if running.url else "The stores already run"
    return f"{what} (pid {running.pid}). `make stop` stops it; `make status` shows details."


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"

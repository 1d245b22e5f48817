"""Folders that one process each holds by a lock, so that another can take what a dead one left; knows no content."""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from common.http.context import uuid7

_LOCK: Final = "lock"
_ATTEMPTS: Final = 100


def acquire_directory(root: Path) -> tuple[Path, int]:
    """A new folder under `root` and the descriptor of its lock, which falls with the process.

    Between making a folder and locking it, another process may take it for a dead one's: then a new one is made.
    """
    for _ in range(_ATTEMPTS):
        directory = root / uuid7()
        directory.mkdir(mode=0o700)
        lock = try_lock_directory(directory)
        if lock is not None:
            return directory, lock
    raise BlockingIOError(errno.EAGAIN, "other processes take every new folder")


def try_lock_directory(directory: Path) -> int | None:
    """The descriptor of the folder's lock; None when another process holds it or has just removed the folder."""
    path = directory / _LOCK
    is_held = False
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_held = os.path.samestat(os.fstat(fd), path.stat())
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if not is_held:
            os.close(fd)
    return fd if is_held else None


def remove_directory(directory: Path) -> None:
    """Remove an empty folder whose lock we hold; one with anything in it stays."""
    with suppress(OSError):
        (directory / _LOCK).unlink(missing_ok=True)
        directory.rmdir()

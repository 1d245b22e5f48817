"""Child processes: tied to their parent, recognised after a crash, and run as another user than root."""

import ctypes
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
_CLOSING_S = 5.0


def tied_to_parent(sent: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn`: the kernel sends `sent` to the child when the thread that started it exits.

    Start such a child only from the main thread. macOS has no such call: there the next start, or `make stop`, ends
    the children of a killed launcher.
    """
    if sys.platform != "linux":
        return lambda: None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(sent))
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return tie


def command_of(pid: int) -> str:
    """Return the command line of a process; empty if it has exited or is a zombie."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    listed = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return "" if "<defunct>" in listed.stdout else listed.stdout


def signalled(pid: int, mark: str, sent: signal.Signals) -> bool:
    """Send a signal to `pid` if its command line contains `mark`; return whether it was sent."""
    if mark not in command_of(pid):
        return False
    try:
        os.kill(pid, sent)
    except ProcessLookupError:  # it has just exited
        return False
    return True


def end_stranded(pid: int, mark: str, sent: signal.Signals, patience_s: float = 30.0) -> None:
    """End a process that an earlier launcher left behind, if the command line of `pid` contains `mark`."""
    deadline = time.monotonic() + patience_s
    signalled(pid, mark, sent)
    while mark in command_of(pid):
        if time.monotonic() > deadline:
            signalled(pid, mark, signal.SIGKILL)
            deadline += patience_s
        time.sleep(_POLL_S)
    _wait_closed(pid)


def _wait_closed(pid: int) -> None:
    """Wait until the process has closed its sockets, which happens after its command line is gone."""
    if sys.platform != "linux":
        return
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if not command_of(pid):
            select.select([process], [], [], _CLOSING_S)
    finally:
        os.close(process)


def end(process: subprocess.Popen[bytes], asked: signal.Signals, patience_s: float) -> None:
    """Ask a child to stop, and kill it if it does not stop in time."""
    if process.poll() is not None:
        return
    process.send_signal(asked)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True, slots=True)
class Identity:
    """How to run a program as a user: a command prefix, the owner of its files, and whether to switch users."""

    prefix: tuple[str, ...]
    uid: int
    gid: int
    switches: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """Arguments for `subprocess`."""
        return {"user": self.uid, "group": self.gid, "extra_groups": ()} if self.switches else {}


class NoIdentityError(Exception):
    """Root found no way to run the program without privileges; the message names the cure."""


def unprivileged(folder: Path, program: Path) -> Identity:
    """Return an identity that is not root, can write to `folder`, which it then owns, and can run `program`."""
    for identity in _candidates():
        if os.geteuid() == 0:
            os.chown(folder, identity.uid, identity.gid)
        if _can_run(identity, folder, program):
            return identity
    raise NoIdentityError(
        f"{program} cannot be run with its data in {folder}. As root: use an ordinary user, "
        "move the checkout out of a private folder such as /root, or set DATABASE_URL."
    )


def give(path: Path, identity: Identity) -> None:
    """As root, give a file or a folder with its content to the identity.

    Links are not followed: the identity could replace its files by links to files of other users.
    """
    if os.geteuid() != 0 or path.lstat().st_uid == identity.uid:
        return
    os.chown(path, identity.uid, identity.gid, follow_symlinks=False)
    for _, folders, files, opened in os.fwalk(path):
        for name in (*folders, *files):
            os.chown(name, identity.uid, identity.gid, dir_fd=opened, follow_symlinks=False)


def _candidates() -> Iterator[Identity]:
    if os.geteuid() != 0:
        yield Identity((), os.geteuid(), os.getegid())
        return
    entry = pwd.getpwnam("nobody")
    uid, gid = entry.pw_uid, entry.pw_gid
    yield Identity((), uid, gid, switches=True)
    if shutil.which("unshare"):  # keeps root's access to private folders such as /root
        yield Identity(("unshare", "--user", f"--map-user={uid}", f"--map-group={gid}"), 0, 0)


def _can_run(identity: Identity, folder: Path, program: Path) -> bool:
    script = 'test -w "$1" && test -x "$1" && exec "$2" --version'
    try:
        tried = subprocess.run(
            [*identity.prefix, "sh", "-c", script, "sh", str(folder), str(program)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            **identity.options,
        )
    except OSError:
        return False
    return tried.returncode == 0

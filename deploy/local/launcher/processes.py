"""Processes that end with their parent and can be recognised after a crash; knows no particular program."""

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
_CLOSING_S = 5.0


def tied_to_parent(sent: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: the kernel sends `sent` to the child when the thread that started it ends.

    Start such a child from the main thread only: a worker thread that ends takes it along. macOS has no such call;
    there the next start, or `make stop`, ends what a killed launcher left behind.
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
    """The command line of a living process; empty for one that is gone or a zombie."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    listed = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return "" if "<defunct>" in listed.stdout else listed.stdout


def signalled(pid: int, mark: str, sent: signal.Signals) -> bool:
    """Send a signal to `pid` if it still is a process whose command line contains `mark`; whether it was."""
    if mark not in command_of(pid):
        return False
    try:
        os.kill(pid, sent)
    except ProcessLookupError:  # it ended just now
        return False
    return True


def end_stranded(pid: int, mark: str, sent: signal.Signals, patience_s: float) -> None:
    """End a process that an earlier launcher left, if `pid` still is one whose command line contains `mark`."""
    deadline = time.monotonic() + patience_s
    signalled(pid, mark, sent)
    while mark in command_of(pid):
        if time.monotonic() > deadline:
            signalled(pid, mark, signal.SIGKILL)
            deadline += patience_s
        time.sleep(_POLL_S)
    _wait_closed(pid)


def _wait_closed(pid: int) -> None:
    """A process that ends has no command line any more while it frees its memory, and its sockets are closed last."""
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
    """Ask a child to stop, and kill it when it has not stopped in time."""
    if process.poll() is not None:
        return
    process.send_signal(asked)
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """Kill a child and the children that it has at once; theirs live on."""
    if process.poll() is not None:
        return  # its number may be another's by now
    process.send_signal(signal.SIGSTOP)  # it starts no other meanwhile
    for pid in _children(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _children(pid: int) -> list[int]:
    """None where the kernel was built without telling them."""
    if sys.platform == "linux":
        known = Path(f"/proc/{pid}/task/{pid}/children")
        listed = known.read_text() if known.exists() else ""
    else:
        listed = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(child) for child in listed.split()]

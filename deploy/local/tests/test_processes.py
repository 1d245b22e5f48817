"""Signals reach only the intended process."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from launcher.ports import is_free
from launcher.processes import end_stranded, signalled

LISTENS = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); held = b'x' * (1 << 27)"
WAITS = "import sys; print('up', flush=True); sys.stdin.read()  # waits here"


def test_signal__needs_the_mark_in_the_command_line() -> None:
    command = [sys.executable, "-c", WAITS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout
        waiting.stdout.readline()  # the command line is visible once the process runs
        assert not signalled(waiting.pid, "another mark", signal.SIGKILL)
        assert signalled(waiting.pid, "waits here", signal.SIGKILL)
    assert waiting.returncode == -signal.SIGKILL


def test_pid__of_another_process__gets_no_signal() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not signalled(ended.pid, "", signal.SIGTERM)
    assert not signalled(0, "launcher", signal.SIGTERM)
    assert not signalled(os.getpid(), "a mark of another", signal.SIGTERM)


def test_end_stranded__returns_after_the_sockets_are_closed(free_port: Callable[[], int]) -> None:
    """The kernel drops the command line first, then frees memory, which takes a while, then closes files."""
    port = free_port()
    command = [sys.executable, "-c", f"{LISTENS}\n{WAITS}", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listening:
        assert listening.stdout
        assert listening.stdout.readline() == b"up\n"
        end_stranded(listening.pid, "waits here", signal.SIGKILL, patience_s=60)
        assert is_free(port)

"""Signals reach the process that was meant, or nobody."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from launcher.ports import is_free
from launcher.processes import end_stranded, kill_family, signalled

PARENT = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; print('child', flush=True); time.sleep(600)"])
"""
LISTENS = "import socket, sys; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); held = b'x' * (1 << 27)"
WAITS = "import sys; print('up', flush=True); sys.stdin.read()  # waits here"


def test_signal__reaches_the_process_that_has_the_mark() -> None:
    command = [sys.executable, "-c", WAITS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waiting:
        assert waiting.stdout
        waiting.stdout.readline()  # until it runs, the kernel may not show its command line yet
        assert not signalled(waiting.pid, "another mark", signal.SIGKILL)
        assert signalled(waiting.pid, "waits here", signal.SIGKILL)
    assert waiting.returncode == -signal.SIGKILL


def test_pid_of_nobody__gets_no_signal() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not signalled(ended.pid, "", signal.SIGTERM)
    assert not signalled(0, "launcher", signal.SIGTERM)
    assert not signalled(os.getpid(), "a mark of another", signal.SIGTERM)


def test_killed_family__has_no_child_left() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        parent.stdout.readline()
        kill_family(parent)
        assert parent.stdout.read() == b""  # both have let go of it
    assert parent.returncode == -signal.SIGKILL


def test_family_that_ended_long_ago__is_left_alone() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kill_family(ended)
    assert ended.returncode == 0


def test_stranded_process__has_closed_its_sockets_once_it_counts_as_ended(free_port: Callable[[], int]) -> None:
    """The kernel forgets its command line, then frees its memory, which takes a while, and closes its files."""
    port = free_port()
    command = [sys.executable, "-c", f"{LISTENS}\n{WAITS}", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as listening:
        assert listening.stdout
        assert listening.stdout.readline() == b"up\n"
        end_stranded(listening.pid, "waits here", signal.SIGKILL, patience_s=60)
        assert is_free(port)

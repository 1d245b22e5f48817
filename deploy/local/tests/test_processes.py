"""Signals reach the process that was meant, or nobody."""

import os
import signal
import subprocess
import sys

from launcher.processes import signalled

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

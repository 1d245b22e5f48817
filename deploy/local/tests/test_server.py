"""Time limits of a store's start."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.server import Server, StoreError


class Slow(Server):
    """Becomes ready after `ready_after` checks; `recovers` is the state until then."""

    name = "Slow"
    stop_signal = signal.SIGTERM

    def __init__(self, state: Path, ready_after: int, recovers: bool) -> None:
        super().__init__(state, 9)
        self.left, self.recovers = ready_after, recovers

    def launch(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def is_ready(self) -> bool:
        self.left -= 1
        return self.left < 0

    def is_recovering(self) -> bool:
        return self.recovers

    def end_stranded(self) -> None:
        return


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Callable[[bool], Slow]]:
    """Call it for a server that exceeds its time limit; the argument says whether it is recovering."""
    made: list[Slow] = []

    def server(recovers: bool) -> Slow:
        made.append(Slow(tmp_path, 3, recovers))
        return made[-1]

    yield server
    for one in made:
        one.kill()
        if one.process is not None and one.process.stdin is not None:
            one.process.stdin.close()


def test_recovering_server__is_awaited_and_reported_once(slow: Callable[[bool], Slow]) -> None:
    reported: list[str] = []
    server = slow(True)
    server.start(timeout_s=0.0, on_recovery=lambda: reported.append(server.name))
    assert server.is_running
    assert reported == ["Slow"]


def test_slow_server__is_killed_after_the_limit(slow: Callable[[bool], Slow]) -> None:
    server = slow(False)
    with pytest.raises(StoreError, match="Slow does not start"):
        server.start(timeout_s=0.0)
    assert not server.is_running

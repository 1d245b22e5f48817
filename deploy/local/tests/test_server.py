"""A store that starts slowly."""

import signal
import subprocess
import sys
from pathlib import Path

from launcher.server import Server


class Slow(Server):
    """Becomes ready at the fourth check."""

    name = "Slow"
    stop_signal = signal.SIGTERM
    checks = 0

    def launch(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)

    def is_ready(self) -> bool:
        self.checks += 1
        return self.checks > 3

    def end_stranded(self) -> None:
        return


def test_late_server__is_awaited_and_reported_once(tmp_path: Path) -> None:
    reported: list[int] = []
    server = Slow(tmp_path, 9)
    server.launch()
    assert server.process is not None and server.process.stdin is not None
    with server.process:
        server.wait_ready(lambda: reported.append(server.checks), late_s=0.0)
        assert (server.is_running, reported) == (True, [1])
        server.kill()

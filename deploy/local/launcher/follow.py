"""Shows the log files of the services: their last lines, then what is added; never writes one."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from launcher.logs import Console

_POLL_S = 0.3


def show(paths: Sequence[Path], console: Console, last: int, follows: bool) -> None:
    """Print the last lines of each file and, when asked, new lines until interrupted."""
    tails = [Tail(path) for path in paths]
    for tail in tails:
        for line in deque(tail.new_lines(), maxlen=last):
            console.line(tail.path.stem, line)
    while follows:
        time.sleep(_POLL_S)
        for tail in tails:
            for line in tail.new_lines():
                console.line(tail.path.stem, line)


class Tail:
    """Reads a log file from where it stopped; starts over when the file was rotated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._inode = 0

    def new_lines(self) -> Iterator[str]:
        """The whole lines that were added since the last call."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            self._start_over_if_rotated(self.path.stat().st_ino)
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                yield line.decode(errors="replace").rstrip("\r\n")

    def _start_over_if_rotated(self, inode: int) -> None:
        if inode != self._inode:
            self._inode, self._offset = inode, 0

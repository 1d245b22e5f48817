"""Times what others take: while our own loop stands still it stops, for their answer may be there, and unread."""

import asyncio
import time
from collections.abc import Callable


class Stopwatch:
    """Runs from `start` to `stop`, again and again. A timer, due every `tick_s`, shows by how much the loop is late."""

    _timer: asyncio.TimerHandle

    def __init__(self, tick_s: float, now: Callable[[], float]) -> None:
        self._tick_s = tick_s
        self._now = now
        self._before_s = 0.0
        self._since_s: float | None = None
        self._due_s = 0.0

    def read_s(self) -> float:
        """Seconds that it has run so far."""
        if self._since_s is None:
            return self._before_s
        late_s = self._late_s()
        return self._before_s + self._now() - self._since_s - late_s

    def start(self) -> None:
        self._since_s = self._now()
        self._wait()

    def stop(self) -> None:
        self._timer.cancel()
        self._before_s, self._since_s = self.read_s(), None

    def _wait(self) -> None:
        self._due_s = time.monotonic() + self._tick_s  # not the loop's clock, which uvloop reads once in a turn
        self._timer = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        self._before_s -= self._late_s()
        self._wait()

    def _late_s(self) -> float:
        return max(0.0, time.monotonic() - self._due_s)

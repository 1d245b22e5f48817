"""How much slower this machine is than its processor: other programs on it stretch every time that is promised."""

import asyncio
import time
from typing import Final

from chaos.windows import Span

EVERY_S: Final = 2.0
BURN_S: Final = 0.03
AROUND_S: Final = 5.0
TOO_SLOW: Final = 3.0  # from there on no promise of time is judged


class Yardstick:
    """`run` until cancelled: now and then it wants a little processor time and looks how long it waits for it."""

    def __init__(self) -> None:
        self.measured: list[tuple[float, float]] = []

    async def run(self) -> None:
        while True:
            slowness = await asyncio.to_thread(_burn)
            self.measured.append((time.time(), slowness))
            await asyncio.sleep(EVERY_S)

    def slowness(self, span: Span) -> float:
        """1 on a machine with nothing else to do; the mean around `span`."""
        start_s, end_s = span.start_s - AROUND_S, span.end_s + AROUND_S
        near = [slowness for at_s, slowness in self.measured if start_s <= at_s <= end_s]
        return max(1.0, sum(near) / len(near)) if near else 1.0


def _burn() -> float:
    """Elapsed time for each second of processor time."""
    started, used = time.perf_counter(), time.thread_time()
    while (done := time.thread_time() - used) < BURN_S:
        pass
    return (time.perf_counter() - started) / done

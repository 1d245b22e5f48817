"""Measures how much other programs slow this machine down, because they extend every promised time."""

import asyncio
import os
import sys
from typing import Final, NamedTuple

from chaos.system import starvation
from chaos.windows import Span

AROUND_S: Final = 5.0
TOO_SLOW: Final = 3.0  # above it no promise about time is checked
SLIGHTLY: Final = 1.5  # below it a machine counts as idle


class Measured(NamedTuple):
    """`waited`: elapsed time per second of processor time. `others`: other programs' share of all processors."""

    at_s: float
    waited: float
    others: float

    @property
    def slowness(self) -> float:
        """The slowness that other programs explain. The system's own usage does not count."""
        return min(self.waited, 1 / max(1e-3, 1 - self.others))


class Yardstick:
    """Measures in `run` until cancelled, in a separate process."""

    def __init__(self) -> None:
        self.measured: list[Measured] = []

    async def run(self) -> None:
        """Run. Raises RuntimeError if the measuring process ends."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, starvation.__file__, str(os.getpid()), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                self.measured.append(Measured(*map(float, line.split())))
            raise RuntimeError("what measures the machine has ended")
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    def slowness(self, span: Span) -> float:
        """Return the mean slowness around `span`, 1 on an idle machine."""
        start_s, end_s = span.start_s - AROUND_S, span.end_s + AROUND_S
        near = [one.slowness for one in self.measured if start_s <= one.at_s <= end_s]
        return max(1.0, sum(near) / len(near)) if near else 1.0

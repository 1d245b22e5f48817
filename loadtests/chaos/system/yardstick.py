"""How much slower this machine is than its processor: other programs on it stretch every time that is promised."""

import asyncio
import os
import sys
from typing import Final, NamedTuple

from chaos.system import starvation
from chaos.windows import Span

AROUND_S: Final = 5.0
TOO_SLOW: Final = 3.0  # from there on no promise of time is judged
SLIGHTLY: Final = 1.5  # below it a machine is as good as quiet


class Measured(NamedTuple):
    """`waited`: elapsed for each second of processor time; `others`: their share of all processors."""

    at_s: float
    waited: float
    others: float

    @property
    def slowness(self) -> float:
        """What was waited, but no more than other programs explain: what this system takes itself is no excuse."""
        return min(self.waited, 1 / max(1e-3, 1 - self.others))


class Yardstick:
    """`run` until cancelled: a process beside this one looks every now and then."""

    def __init__(self) -> None:
        self.measured: list[Measured] = []

    async def run(self) -> None:
        """Raises RuntimeError when the process beside ends by itself."""
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
        """1 on a machine with nothing else to do; the mean around `span`."""
        start_s, end_s = span.start_s - AROUND_S, span.end_s + AROUND_S
        near = [one.slowness for one in self.measured if start_s <= one.at_s <= end_s]
        return max(1.0, sum(near) / len(near)) if near else 1.0

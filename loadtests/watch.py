"""Watches a running system under load: its connections, who uses the processors, and the limiter's own log."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import asyncpg
import psutil
from benchmarks.results import cores
from objectives import merged
from system import System

LOOK_S: Final = 1.0
ADMISSIONS_EVERY: Final = 10  # looks; far below the window of a limit


@dataclass
class Cpu:
    """Processor seconds since the start, and the time of the sample."""

    at_s: float
    system_s: float
    generator_s: float
    idle_s: float


@dataclass
class Watch:
    """The samples so far. `admissions` by limit, then by key."""

    system: System
    connections: list[int] = field(default_factory=list)
    looks: list[Cpu] = field(default_factory=list)
    admissions: dict[int, dict[bytes, Counter[int]]] = field(default_factory=dict)

    async def run(self, generator_pid: int) -> None:
        """Take samples until cancelled."""
        generator, edge = psutil.Process(generator_pid), self.system.service("edge_limiter")
        database = await self.system.database()
        try:
            while True:
                self.connections.append(await asyncio.to_thread(_established, edge, self.system.port_base))
                self.looks.append(await asyncio.to_thread(self._cpu, generator))
                if len(self.looks) % ADMISSIONS_EVERY == 0:
                    await self.look_at_limits(database)
                await asyncio.sleep(LOOK_S)
        finally:
            await database.close()

    async def look_at_limits(self, database: "asyncpg.Connection[asyncpg.Record]") -> None:
        for key, limit, log_us in await database.fetch("SELECT key, quota, log_us FROM edge.admissions"):
            merged(self.admissions.setdefault(limit, {}), key, log_us)

    def held(self, from_s: float, to_s: float) -> int:
        """Return the fewest connections of the samples between these times since the first."""
        begin_s = self.looks[0].at_s
        seen = zip(self.connections, self.looks, strict=False)
        return min((count for count, look in seen if from_s <= look.at_s - begin_s <= to_s), default=0)

    def busy(self, from_s: float) -> tuple[float, float, float]:
        """Return shares of all processors since a sample: the system, the generator, and the whole machine."""
        begin = next((look for look in self.looks if look.at_s - self.looks[0].at_s >= from_s), self.looks[0])
        end = self.looks[-1]
        elapsed_s = (end.at_s - begin.at_s) * len(cores())
        idle = (end.idle_s - begin.idle_s) / elapsed_s
        return (
            (end.system_s - begin.system_s) / elapsed_s,
            (end.generator_s - begin.generator_s) / elapsed_s,
            1 - idle,
        )

    def _cpu(self, generator: psutil.Process) -> Cpu:
        ours = sum(map(_cpu_s, self.system.processes()))
        each = psutil.cpu_times(percpu=True)
        return Cpu(time.monotonic(), ours, _cpu_s(generator), sum(each[core].idle for core in cores()))


def _established(edge: psutil.Process, port: int) -> int:
    found = edge.net_connections("tcp4")
    return sum(one.laddr.port == port and one.status == psutil.CONN_ESTABLISHED for one in found)


def _cpu_s(process: psutil.Process) -> float:
    try:
        return float(sum(process.cpu_times()[:2]))
    except psutil.NoSuchProcess:
        return 0.0

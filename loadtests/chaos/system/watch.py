"""Samples memory, file descriptors and tasks of every process and finds leaks."""

import asyncio
import re
import statistics
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

import aiohttp
import psutil

from chaos.system.stack import SERVICES, STORES, Stack

WARM_UP_S: Final = 20.0
SHORTEST_S: Final = 20.0  # from warm-up to end
MOST_RSS_GROWTH: Final = 0.20
MOST_RSS_MIB: Final = 24.0  # smaller growth is noise
MOST_FDS: Final = 44  # 22 waiting clients have a connection on each side of the edge for up to a minute
MOST_TASKS: Final = 20
_TASKS: Final = re.compile(r"^sluice_loop_tasks ([\d.e+]+)$", re.MULTILINE)
_FEW: Final = 5


class Sample(NamedTuple):
    """One sample of one process.

    `tasks` are tasks of the event loop, children for PostgreSQL, threads for others. `clients` are descriptors of
    client connections, counted at the edge only.
    """

    at_s: float
    pid: int
    rss_mib: float
    fds: int
    tasks: int
    clients: int = 0

    @property
    def own_fds(self) -> int:
        return self.fds - self.clients


@dataclass(frozen=True, slots=True)
class Life:
    """A process from warm-up to end: medians of its first and last calm samples."""

    name: str
    seconds: float
    first: Sample
    last: Sample

    @property
    def leak(self) -> str:
        """What grew too much, empty if nothing did."""
        grown_mib = self.last.rss_mib - self.first.rss_mib
        found = []
        if grown_mib > max(MOST_RSS_MIB, self.first.rss_mib * MOST_RSS_GROWTH):
            found.append(f"RSS {self.first.rss_mib:.0f} to {self.last.rss_mib:.0f} MiB")
        if self.last.fds > self.first.fds + MOST_FDS:
            found.append(f"{self.first.fds} to {self.last.fds} file descriptors")
        if self.last.tasks > self.first.tasks + MOST_TASKS:
            found.append(f"{self.first.tasks} to {self.last.tasks} tasks")
        return ", ".join(found)


class Watch:
    """Samples in `run` until cancelled. `is_calm` returns whether no fault is active, so samples are comparable."""

    def __init__(self, stack: Stack, every_s: float = 2.0) -> None:
        self._stack = stack
        self._every_s = every_s
        self.is_calm = True
        self.samples: dict[str, list[Sample]] = {}
        self._born_s: dict[int, float] = {}

    async def run(self) -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1.0)) as session:
            while True:
                await self._look(session)
                await asyncio.sleep(self._every_s)

    def lives(self) -> list[Life]:
        """Return the lives that are long enough to compare."""
        return [
            life
            for name, samples in self.samples.items()
            for pid in dict.fromkeys(sample.pid for sample in samples)
            if (life := life_of(name, [s for s in samples if s.pid == pid], self._born_s[pid])) is not None
        ]

    async def _look(self, session: aiohttp.ClientSession) -> None:
        processes: dict[str, psutil.Process | None] = dict(self._stack.launchers())
        processes |= {name: self._stack.process(name) for name in (*SERVICES, *STORES)}
        tasks = await asyncio.gather(*(_tasks(session, f"{self._stack.ops_url(name)}/metrics") for name in SERVICES))
        said: dict[str, int | None] = dict(zip(SERVICES, tasks, strict=True))
        for name, process in processes.items():
            if process is None or not self.is_calm:
                continue
            with suppress(psutil.NoSuchProcess):
                self._born_s.setdefault(process.pid, process.create_time())
                sample = _sample(name, process, said.get(name, -1))
                if sample is not None:
                    self.samples.setdefault(name, []).append(sample)


def life_of(name: str, samples: Sequence[Sample], born_s: float) -> Life | None:
    """Return the life of a process, None if it was too short."""
    warm = [sample for sample in samples if sample.at_s >= born_s + WARM_UP_S]
    if len(warm) < 2 * _FEW or warm[-1].at_s - warm[0].at_s < SHORTEST_S:
        return None
    return Life(name, warm[-1].at_s - born_s, _median(warm[:_FEW]), _median(warm[-_FEW:]))


def _median(samples: Sequence[Sample]) -> Sample:
    columns: Iterable[tuple[float, ...]] = zip(*samples, strict=True)
    at_s, pid, rss_mib, *counts = (statistics.median(column) for column in columns)
    return Sample(at_s, int(pid), rss_mib, *map(int, counts))


def _sample(name: str, process: psutil.Process, tasks: int | None) -> Sample | None:
    """Take a sample. None if a service did not export its tasks."""
    if tasks is None:
        return None
    if tasks < 0:
        tasks = len(process.children()) if name == "postgres" else process.num_threads()
    clients = accepted(process) if name == "edge-limiter" else 0
    return Sample(time.time(), process.pid, process.memory_info().rss / (1 << 20), process.num_fds(), tasks, clients)


def accepted(process: psutil.Process) -> int:
    """Return the accepted connections that both ends keep open."""
    connections = process.net_connections("tcp")
    listens = {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
    return sum(each.laddr.port in listens and each.status == psutil.CONN_ESTABLISHED for each in connections)


async def _tasks(session: aiohttp.ClientSession, url: str) -> int | None:
    try:
        async with session.get(url, headers={"Accept": "text/plain"}) as response:
            found = _TASKS.search(await response.text())
    except (aiohttp.ClientError, TimeoutError):
        return None
    return int(float(found[1])) if found else None

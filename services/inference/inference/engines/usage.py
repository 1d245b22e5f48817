"""Processor time and memory of the scoring processes, which the `process_*` metrics of the service leave out."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PROC: Final = Path("/proc")


class ScoringUsage(Collector):
    """The children of this process. The processor time of those that have exited stays counted.

    Without Linux's `/proc`, only exited processes are counted.
    """

    def collect(self) -> Iterator[Metric]:
        exited = os.times()
        cpu_s, memory_bytes = exited.children_user + exited.children_system, 0
        for pid in _children():
            with suppress(OSError):  # it has just exited
                # the fields of proc_pid_stat(5) from the third on; the second, its name, may contain spaces
                fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
                cpu_s += (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
                memory_bytes += int(fields[21]) * _PAGE_BYTES
        yield CounterMetricFamily(
            "sluice_inference_scoring_cpu_seconds", "Processor time of the scoring processes.", value=cpu_s
        )
        yield GaugeMetricFamily(
            "sluice_inference_scoring_resident_memory_bytes", "Memory of the scoring processes.", value=memory_bytes
        )


def _children() -> Iterator[int]:
    for listed in _PROC.glob("self/task/*/children"):
        with suppress(OSError):  # the thread has just ended
            yield from map(int, listed.read_text().split())

"""Looks, in a process of its own, how long a program waits for the processor and how much others take of it.

    python starvation.py PID

Prints a line every EVERY_S: Unix seconds, elapsed time for each second of processor time that it wanted, and the
share of the processors that went to programs outside the tree of PID. A process of its own, because a thread would
also wait for the interpreter's lock; the share, because a service that spins is no excuse for itself.
"""

import os
import sys
import time
from typing import Final, NamedTuple

import psutil

EVERY_S: Final = 2.0
BURN_S: Final = 0.03


class Use(NamedTuple):
    """Seconds since some begin: of the clock, of all processors in use, of those in use by one tree of processes."""

    at_s: float
    all_s: float
    ours_s: float


def others_share(before: Use, after: Use, cores: int) -> float:
    """Of all processors, between the two looks."""
    others_s = after.all_s - before.all_s - max(0.0, after.ours_s - before.ours_s)
    return min(1.0, max(0.0, others_s / (cores * (after.at_s - before.at_s))))


def look(root: psutil.Process, cores: list[int]) -> Use:
    """Children that ended count as their parents', so that none is lost."""
    each = psutil.cpu_times(percpu=True)
    all_s = sum(sum(each[core]) - each[core].idle - getattr(each[core], "iowait", 0.0) for core in cores)
    ours_s = sum(map(_cpu_s, [root, *root.children(recursive=True)]))
    return Use(time.monotonic(), all_s, ours_s)


def _cpu_s(process: psutil.Process) -> float:
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(used.user + used.system + used.children_user + used.children_system)


def burn() -> float:
    """Elapsed time for each second of processor time."""
    started, used = time.perf_counter(), time.process_time()
    while (done := time.process_time() - used) < BURN_S:
        pass
    return (time.perf_counter() - started) / done


def main() -> None:
    root = psutil.Process(int(sys.argv[1]))
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]
    before = look(root, cores)
    while os.getppid() == root.pid:
        time.sleep(EVERY_S)
        waited, after = burn(), look(root, cores)
        print(time.time(), waited, others_share(before, after, len(cores)), flush=True)
        before = after


if __name__ == "__main__":
    main()

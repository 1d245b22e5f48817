"""Measures how long a program waits for a processor and how much other programs use. Runs as a separate process:

    python starvation.py PID

Prints a line every EVERY_S: Unix seconds, elapsed time per second of wanted processor time, and the share of the
processors used by programs outside the process tree of PID. A thread would also wait for the interpreter's lock. The
share excludes slowness that the system itself causes.
"""

import os
import sys
import time
from typing import Final, NamedTuple

import psutil

EVERY_S: Final = 2.0
BURN_S: Final = 0.03


class Use(NamedTuple):
    """Seconds of the clock, of all processors in use, and of those used by one process tree."""

    at_s: float
    all_s: float
    ours_s: float


def others_share(before: Use, after: Use, cores: int) -> float:
    """Return the share of all processors used by others between two samples."""
    others_s = after.all_s - before.all_s - max(0.0, after.ours_s - before.ours_s)
    return min(1.0, max(0.0, others_s / (cores * (after.at_s - before.at_s))))


def look(root: psutil.Process, cores: list[int]) -> Use:
    """Take a sample. Ended children count with their parents."""
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
    """Return the elapsed time per second of processor time."""
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

"""Owns the number of cores this process may use; a container's quota counts."""

import os
from pathlib import Path
from typing import Final

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = _QUOTA) -> int:
    """At least 1. Where Linux gives neither affinity nor quota, the machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota_cores(quota)))


def _quota_cores(path: Path) -> int:
    try:
        quota, period = path.read_text(encoding="ascii").split()
        return round(int(quota) / int(period))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return 1 << 16

"""Owns the number of cores this process may use; a container's quota counts."""

import os
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_QUOTAS: Final = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Files with quota and period, in version 2 of control groups and in version 1."""


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """At least 1. Where Linux gives neither affinity nor quota, the machine's cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, _quota_cores(cgroup)))


def _quota_cores(cgroup: Path) -> int:
    for names in _QUOTAS:
        try:
            quota, period = map(int, " ".join((cgroup / name).read_text(encoding="ascii") for name in names).split())
        except (OSError, ValueError):  # no such file, or "max": no quota
            continue
        if quota > 0:  # version 1 has -1 for none
            return round(quota / period)
    return 1 << 16

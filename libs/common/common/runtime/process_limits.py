"""Limits of the process: open files, garbage collection, and no core dumps."""

import gc
import resource
from typing import Final

import structlog

log = structlog.get_logger()

OPEN_FILES: Final = 65_536
COLLECT_AFTER: Final = 20_000  # allocations


def tune_gc() -> None:
    """Exclude long-lived objects from garbage collection, and collect less often: requests leave few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def disable_core_dumps() -> None:
    """Keep texts, addresses and keys off the disk when this process or a child crashes."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def raise_open_file_limit() -> None:
    """Raise the soft limit, which is often 1024: each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.warning("open file limit not raised", limit=soft, reason=type(error).__name__)

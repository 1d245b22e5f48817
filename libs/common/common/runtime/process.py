"""What a serving process sets for itself: how many files it may open, how often it looks for cycles, no core files."""

import gc
import resource
from typing import Final

import structlog

log = structlog.get_logger()

OPEN_FILES: Final = 65_536
COLLECT_AFTER: Final = 20_000  # allocations


def tune_gc() -> None:
    """What lives as long as the process need not be walked, nor a request's few cycles be looked for at once."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def disable_core_dumps() -> None:
    """A crash, its children's too, writes no memory to a disk: texts, addresses and keys lie in it."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def raise_open_file_limit() -> None:
    """Each connection is an open file; the soft limit is often 1024, and a process may raise it itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError) as error:
        log.warning("open files stay limited", limit=soft, reason=type(error).__name__)

"""Starts a separate system for a benchmark, with its own ports, stores and settings, ignoring .env."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from system import System

from launcher.ports import free_ports, is_free

_NOT_THE_USERS: Final = (
    *("DATABASE_URL", "DATABASE_URL_FILE", "REDIS_HOST", "REDIS_PORT", "EDGE_POLICY_FILE", "METRICS_WEBHOOK_URL"),
    *("EDGE_PORT", "EDGE_OPS_PORT", "INFERENCE_PORT", "INFERENCE_OPS_PORT", "METRICS_PORT", "METRICS_OPS_PORT"),
    *("ANALYST_PORT", "ANALYST_OPS_PORT", "GEMINI_API_KEY", "GEMINI_API_KEY_FILE", "EDGE_ADMIN_TOKEN"),
)


@contextmanager
def own_system(state: Path, **environment: str) -> Iterator[System]:
    """Yield a running system that trusts X-Forwarded-For. Its state folder is deleted at the end."""
    chosen = dict.fromkeys(_NOT_THE_USERS, "") | {"LOG_LEVEL": "warning"} | environment
    system = System(state, _port_base(), chosen)
    try:
        system.start()
        yield system
    finally:
        system.stop()
        shutil.rmtree(state, ignore_errors=True)


def _port_base() -> int:
    ports = free_ports()
    while True:
        base = next(ports)
        needed = (*range(base, base + 6), *range(base + 1000, base + 1004))
        if base + 1003 < 1 << 15 and all(map(is_free, needed)):
            return base

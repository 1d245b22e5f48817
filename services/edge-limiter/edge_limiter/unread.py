"""Answers that clients do not read: bounded in memory by ending the connections that have read nothing for longest."""

from collections.abc import Callable
from typing import Final, Protocol

import structlog

log = structlog.get_logger()

HIGH_WATER_BYTES: Final = 4 << 10
"""Of one connection, beyond what the system takes: fewer are not worth counting, even twenty thousand times."""
LIMIT_BYTES: Final = 64 << 20


class Reader(Protocol):
    def abort(self) -> None: ...


class Unread:
    """`add` and `remove` are a connection's, when its client reads too slowly and when it has caught up or gone."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES, on_cut: Callable[[str], None] = lambda _reason: None) -> None:
        self._limit_bytes = limit_bytes
        self._on_cut = on_cut
        self._waiting: dict[Reader, int] = {}  # the oldest first
        self._is_told = False
        self.held_bytes = 0

    def add(self, reader: Reader, size_bytes: int) -> None:
        self._waiting[reader] = size_bytes
        self.held_bytes += size_bytes
        while self.held_bytes > self._limit_bytes:
            slowest = next(iter(self._waiting))
            self.remove(slowest)
            slowest.abort()
            self._on_cut("unread")
            if not self._is_told:
                log.warning("connections that do not read are cut off", limit_bytes=self._limit_bytes)
                self._is_told = True

    def remove(self, reader: Reader) -> None:
        self.held_bytes -= self._waiting.pop(reader, 0)
        if self.held_bytes < self._limit_bytes // 2:
            self._is_told = False

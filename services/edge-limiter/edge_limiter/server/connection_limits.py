"""Bounds what all clients together, and each one alone, may hold: connections, request memory, unread responses."""

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

import structlog

log = structlog.get_logger()

FULL_SHARES: Final = 10
"""This many clients with their full share hold all connections."""
UNREAD_LIMIT_BYTES: Final = 64 << 20
UNREAD_HIGH_WATER_BYTES: Final = 4 << 10
"""Per connection, beyond the kernel's buffer; less is not counted, and 20,000 times this is 80 MiB."""

Report = Callable[[str], None]
"""Counts a refused connection by reason."""


class MemoryBudget:
    """Bytes of request heads and bodies in memory."""

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: float = float("inf")) -> None:
        self.held_bytes = 0
        self.limit_bytes = limit_bytes


class ConnectionLimiter:
    """At most `limit` connections. One client gets any number until half are taken, then only its share.

    The client is None for a trusted proxy, which carries many clients and has no share.
    """

    def __init__(self, limit: int, report: Report = lambda _reason: None) -> None:
        self._limit = limit
        self._share = max(1, limit // FULL_SHARES)
        self._report = report
        self._open = 0
        self._open_by: Counter[bytes] = Counter()
        self._warned: set[str] = set()

    def acquire(self, client: bytes | None) -> bool:
        """Take a connection if the client may have one more."""
        if self._open >= self._limit:
            return self._refuse("full")
        if client is not None:
            if self._open * 2 >= self._limit and self._open_by[client] >= self._share:
                return self._refuse("share")
            self._open_by[client] += 1
        self._open += 1
        return True

    def release(self, client: bytes | None) -> None:
        """Give back what `acquire` took."""
        self._open -= 1
        if client is not None:
            self._open_by[client] -= 1
            if not self._open_by[client]:
                del self._open_by[client]
        if self._warned and self._open < 0.45 * self._limit:
            self._warned.clear()

    def _refuse(self, reason: str) -> bool:
        self._report(reason)
        if reason not in self._warned:
            self._warned.add(reason)
            log.warning("connections refused", reason=reason, open=self._open, limit=self._limit)
        return False


class SlowReader(Protocol):
    client: bytes | None

    def abort(self) -> None: ...


class SlowReaders:
    """Connections whose clients do not read their responses, and how many bytes wait in each.

    Past the limit the client with most unread bytes loses the connection that has not read for longest.
    """

    def __init__(self, limit_bytes: int = UNREAD_LIMIT_BYTES, report: Report = lambda _reason: None) -> None:
        self._limit_bytes = limit_bytes
        self._report = report
        self._waiting: dict[SlowReader, int] = {}  # the longest waiting first
        self._held_by: Counter[bytes | None] = Counter()
        self.held_bytes = 0

    def add(self, reader: SlowReader, size_bytes: int) -> None:
        """Count a connection that stopped reading."""
        self._waiting[reader] = size_bytes
        self._held_by[reader.client] += size_bytes
        self.held_bytes += size_bytes
        while self.held_bytes > self._limit_bytes:
            [(client, _)] = self._held_by.most_common(1)
            slowest = next(waiting for waiting in self._waiting if waiting.client == client)
            self.remove(slowest)
            slowest.abort()
            self._report("unread")

    def remove(self, reader: SlowReader) -> None:
        """Forget a connection that reads again or has closed."""
        size_bytes = self._waiting.pop(reader, None)
        if size_bytes is None:
            return
        self.held_bytes -= size_bytes
        self._held_by[reader.client] -= size_bytes
        if not self._held_by[reader.client]:
            del self._held_by[reader.client]

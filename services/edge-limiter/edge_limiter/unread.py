"""Answers that clients do not read: bounded in memory by ending connections of the client that leaves most unread.

Of these, the one that has read nothing for longest goes first.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

import structlog

log = structlog.get_logger()

HIGH_WATER_BYTES: Final = 4 << 10
"""Of one connection, beyond what the system takes: fewer are not worth counting, even twenty thousand times."""
LIMIT_BYTES: Final = 64 << 20


class Reader(Protocol):
    peer: str

    def abort(self) -> None: ...


class Unread:
    """`add` and `remove` are a connection's, when its client reads too slowly and when it has caught up or gone.

    `whose` says which client a peer is; None for one that stands for many, such as a trusted proxy.
    """

    def __init__(
        self,
        limit_bytes: int = LIMIT_BYTES,
        whose: Callable[[str], bytes | None] = lambda _peer: None,
        on_cut: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._whose = whose
        self._on_cut = on_cut
        self._waiting: dict[Reader, tuple[bytes | None, int]] = {}  # the oldest first
        self._held: Counter[bytes | None] = Counter()
        self._is_told = False
        self.held_bytes = 0

    def add(self, reader: Reader, size_bytes: int) -> None:
        client = self._whose(reader.peer)
        self._waiting[reader] = client, size_bytes
        self._held[client] += size_bytes
        self.held_bytes += size_bytes
        while self.held_bytes > self._limit_bytes:
            slowest = self._slowest()
            self.remove(slowest)
            slowest.abort()
            self._on_cut("unread")
            if not self._is_told:
                log.warning("connections that do not read are cut off", limit_bytes=self._limit_bytes)
                self._is_told = True

    def remove(self, reader: Reader) -> None:
        if reader not in self._waiting:
            return
        client, size_bytes = self._waiting.pop(reader)
        self._held[client] -= size_bytes
        if not self._held[client]:
            del self._held[client]
        self.held_bytes -= size_bytes
        if self.held_bytes < self._limit_bytes // 2:
            self._is_told = False

    def _slowest(self) -> Reader:
        most = max(self._held, key=self._held.__getitem__)
        return next(reader for reader, (client, _) in self._waiting.items() if client == most)

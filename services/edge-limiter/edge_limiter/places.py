"""Who gets a connection: as many as there are places, and no client so many that others find none."""

from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger()

ROOM_AGAIN: Final = 0.9
"""Of all places: only below this it is news again that there is none, for one that leaves makes room for one."""
ONE_IN: Final = 10
"""So many clients, each with its full share, take all places."""


class Places:
    """`whose` says which client a peer is; None for one that stands for many, such as a trusted proxy."""

    def __init__(
        self,
        most: int,
        whose: Callable[[str], bytes | None] = lambda _peer: None,
        on_refused: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._most = most
        self._share = max(1, most // ONE_IN)
        self._whose = whose
        self._on_refused = on_refused
        self._taken = 0
        self._held: Counter[bytes] = Counter()
        self._told: dict[str, float] = {}

    def take(self, peer: str) -> bool:
        """Whether `peer` gets one. Its client may have all that others leave until half of them are taken."""
        client = self._whose(peer)
        if self._taken >= self._most:
            self._refuse("full", ROOM_AGAIN * self._most)
            return False
        if client is not None:
            if self._taken >= self._most / 2 and self._held[client] >= self._share:
                self._refuse("share", ROOM_AGAIN * self._most / 2)
                return False
            self._held[client] += 1
        self._taken += 1
        return True

    def leave(self, peer: str) -> None:
        """Give back what `take` gave."""
        self._taken -= 1
        client = self._whose(peer)
        if client is not None:
            self._held[client] -= 1
            if not self._held[client]:
                del self._held[client]
        if self._told:
            self._told = {reason: until for reason, until in self._told.items() if self._taken >= until}

    def _refuse(self, reason: str, until: float) -> None:
        self._on_refused(reason)
        if reason not in self._told:
            log.warning("connections are refused", because=reason, connections=self._taken, most=self._most)
        self._told[reason] = until

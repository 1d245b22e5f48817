"""Results by the SHA-256 of model revision and text, bounded in bytes."""

import hashlib
from collections import OrderedDict
from typing import Final

from inference.batching.jobs import Scored

_ENTRY_BYTES: Final = 360  # a key, a Scored with four numbers and their dictionary entry, measured with tracemalloc
_SCORE_BYTES: Final = 32


def key_of(revision: str, text: str) -> bytes:
    """The text must be encodable as UTF-8 (no lone surrogates)."""
    return hashlib.sha256(f"{revision}\0{text}".encode()).digest()


class ResultCache:
    """An LRU cache; with `max_bytes` of 0 it stores nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[bytes, Scored] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Scored | None:
        scored = self._entries.get(key)
        if scored is not None:
            self._entries.move_to_end(key)
        return scored

    def put(self, key: bytes, scored: Scored) -> None:
        """Store `scored` and evict the least recently used results."""
        if (old := self._entries.pop(key, None)) is not None:
            self.size_bytes -= _size_bytes(old)
        self._entries[key] = scored
        self.size_bytes += _size_bytes(scored)
        while self.size_bytes > self._max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.size_bytes -= _size_bytes(dropped)


def _size_bytes(scored: Scored) -> int:
    return _ENTRY_BYTES + _SCORE_BYTES * len(scored.scores)

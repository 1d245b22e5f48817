"""Owns what is known already: results by text, bounded in bytes, and texts on their way that others may wait for too.

Both are keyed by the SHA-256 of model revision and text. Knows no clock, no HTTP and no engine.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from inference.batching.jobs import Job, Scored

_ENTRY_BYTES: Final = 360  # a key, a Scored of four numbers and their places in the dictionary, as tracemalloc counts
_SCORE_BYTES: Final = 32


def key_of(revision: str, text: str) -> bytes:
    """The text must be encodable as UTF-8 (no lone surrogates)."""
    return hashlib.sha256(f"{revision}\0{text}".encode()).digest()


class ResultCache:
    """Least recently used results; `max_bytes` of 0 keeps none."""

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
        """Remember `scored`; what was not asked for longest goes first."""
        if (old := self._entries.pop(key, None)) is not None:
            self.size_bytes -= _size_bytes(old)
        self._entries[key] = scored
        self.size_bytes += _size_bytes(scored)
        while self.size_bytes > self._max_bytes:
            _, dropped = self._entries.popitem(last=False)
            self.size_bytes -= _size_bytes(dropped)


def _size_bytes(scored: Scored) -> int:
    return _ENTRY_BYTES + _SCORE_BYTES * len(scored.scores)


class SingleFlight:
    """Jobs on their way by key. A job is withdrawn only when the last who waits for it has left."""

    def __init__(self, extend: Callable[[Job, float], bool]) -> None:
        self._extend = extend
        self._jobs: dict[bytes, Job] = {}
        self._waiters: dict[Job, int] = {}

    def __contains__(self, key: bytes) -> bool:
        return key in self._jobs

    def board(self, key: bytes, job: Job) -> None:
        """Let others wait for `job` too, until it ends. Who boards must `leave`."""
        self._jobs[key] = job
        self._waiters[job] = 1
        job.future.add_done_callback(lambda _future: self._done(key, job))

    def join(self, key: bytes, deadline_s: float) -> Job | None:
        """The job for the same text, if one is on its way and not past its deadline. Who joins must `leave`."""
        job = self._jobs.get(key)
        if job is None or job.future.cancelled() or not self._extend(job, deadline_s):
            return None
        self._waiters[job] = self._waiters.get(job, 0) + 1
        return job

    def leave(self, job: Job) -> None:
        """One less waits for `job`; the last to go withdraws it, unless it has ended."""
        self._waiters[job] -= 1
        if self._waiters[job] == 0:
            del self._waiters[job]
            job.future.cancel()

    def _done(self, key: bytes, job: Job) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]

"""Records events before responses are sent, and hashes client addresses so that none is stored."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import structlog
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis

from common.contracts.events import CounterEvent, PredictionEvent
from common.journal.journal import Journal, JournalFull
from common.journal.publisher import Publisher
from common.runtime import tasks
from common.runtime.readiness import State
from common.runtime.settings import StartError

log = structlog.get_logger()

WhenFull = Literal["refuse", "drop"]


class Recorder:
    """Records events so that they survive the death of this process, and wakes their publisher."""

    def __init__(
        self, journal: Journal, publisher: Publisher, when_full: WhenFull, registry: CollectorRegistry
    ) -> None:
        self._journal = journal
        self._publisher = publisher
        self._when_full = when_full
        self._recorded = Counter("sluice_events_recorded", "Events appended to the journal.", registry=registry)
        self._dropped = Counter("sluice_events_dropped", "Events lost because the journal was full.", registry=registry)
        self.is_full = False

    def record(self, events: Sequence[PredictionEvent | CounterEvent]) -> None:
        """Append `events` in one transaction. Raises JournalFull unless EVENTS_WHEN_FULL=drop."""
        try:
            self._journal.append([event.model_dump_json(exclude_none=True).encode() for event in events])
        except JournalFull as error:
            if not self.is_full:
                log.error("journal full", reason=str(error), when_full=self._when_full)
            self.is_full = True
            if self._when_full == "refuse":
                raise
            self._dropped.inc(len(events))
            return
        if self.is_full:
            log.info("journal accepts events again")
        self.is_full = False
        self._recorded.inc(len(events))
        self._publisher.notify()

    async def state(self) -> State:
        """Return `degraded` while events wait on disk or the journal is full."""
        return "ok" if self._publisher.is_connected and not self.is_full else "degraded"


class ClientHasher:
    """Keyed HMAC-SHA256 of a client address, truncated to 128 bits. None without a key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def __call__(self, address: str | None) -> str | None:
        if not self._key or not address:
            return None
        return hmac.new(self._key, address.encode(errors="surrogateescape"), hashlib.sha256).hexdigest()[:32]


@asynccontextmanager
async def open_recorder(
    journal: Journal, redis: Redis, *, when_full: WhenFull, registry: CollectorRegistry, drain_s: float
) -> AsyncIterator[Recorder]:
    """Open the journal and publish it in the background. At the end, publish the rest for at most `drain_s`.

    Raises StartError if the journal folder cannot be used.
    """
    try:
        journal.open()
    except JournalFull as error:
        raise StartError(f"{error}: {journal.root}; set EVENTS_JOURNAL_DIR to a folder this user can write") from error
    publisher = Publisher(journal, redis, registry)
    task = asyncio.create_task(publisher.run(), name="event publisher")
    try:
        yield Recorder(journal, publisher, when_full, registry)
    finally:
        try:
            await tasks.cancel_and_wait(task)
            await publisher.drain(drain_s)
        finally:
            journal.close()

"""Publishes the journal to the Redis stream, in order, and again whenever the stream lost events."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import takewhile
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from common.contracts.events import EVENT_FIELD, STREAM
from common.journal.journal import Chunk, Journal
from common.runtime import tasks
from common.stores.redis import REDIS_ERRORS, run_id

log = structlog.get_logger()

CHECK_S: Final = 1.0  # between checks for lost events, and between clean-ups of the journal
BATCH_S: Final = 0.05  # events appended within it share one round trip
CHUNK_BYTES: Final = 1 << 16  # one round trip: about 130 events, which block the loop for about 2 ms
BACKOFF_MIN_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0


class Publisher:
    """Delivers events at least once. Events carry ids, and the consumer drops duplicates."""

    def __init__(
        self, journal: Journal, redis: Redis, registry: CollectorRegistry, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._journal = journal
        self._redis = redis
        self._now = now
        self._wake = asyncio.Event()
        self._check_at_s = 0.0
        self._run_id: str | None = None
        self._last_id = (0, 0)
        self._added = 0
        self._is_clean = True
        self.is_connected = True
        self._published = Counter("sluice_events_published", "Events written to the stream.", registry=registry)
        self._rewinds = Counter("sluice_events_rewinds", "Times that the stream had lost events.", registry=registry)
        pending = Gauge("sluice_events_journal_pending_bytes", "Journal bytes not published yet.", registry=registry)
        pending.set_function(lambda: journal.pending_bytes)
        size = Gauge("sluice_events_journal_bytes", "Journal bytes on disk.", registry=registry)
        size.set_function(lambda: journal.size_bytes)
        skipped = Gauge("sluice_events_journal_skipped_bytes", "Journal bytes lost to damage.", registry=registry)
        skipped.set_function(lambda: journal.skipped_bytes)

    def notify(self) -> None:
        """Wake the publisher after an append."""
        self._wake.set()

    async def run(self) -> None:
        """Publish until cancelled. Errors are retried with back-off and logged once, while events wait on disk."""
        backoff_s = BACKOFF_MIN_S
        while True:
            try:
                await self.publish_all()
            except Exception as error:
                self._check_at_s = 0.0
                self._lost(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(backoff_s * 2, BACKOFF_MAX_S)
            else:
                if not self.is_connected:
                    log.info("stream reachable again")
                self.is_connected = True
                backoff_s = BACKOFF_MIN_S
                await self._idle()

    async def publish_all(self) -> None:
        """Publish everything pending. Raises the errors of the Redis client."""
        while True:
            if self._now() >= self._check_at_s:
                await self._check()
            chunk = self._journal.next_chunk(CHUNK_BYTES)
            if chunk is None:
                return
            await self._publish(chunk)

    async def drain(self, timeout_s: float) -> None:
        """Publish pending events at shutdown, or leave them on disk for the next process."""
        self._check_at_s = 0.0
        publishing = asyncio.create_task(self._publish_rest(), name="journal drain")
        try:
            await asyncio.wait([publishing], timeout=timeout_s)
        finally:
            await tasks.cancel_and_wait(publishing)
        if pending_bytes := self._journal.pending_bytes:
            log.warning("journal left for the next process", pending_bytes=pending_bytes)

    async def _publish_rest(self) -> None:
        for _ in range(2):  # the connection may be stale
            with suppress(*REDIS_ERRORS):
                return await self.publish_all()

    async def _idle(self) -> None:
        try:
            async with asyncio.timeout(CHECK_S):
                await self._wake.wait()
                await asyncio.sleep(BATCH_S)
        except TimeoutError:
            pass
        self._wake.clear()

    async def _publish(self, chunk: Chunk) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for payload in chunk.payloads:
            pipeline.xadd(STREAM, {EVENT_FIELD: payload})
        answers = await pipeline.execute(raise_on_error=False)
        ids = [_parse_id(answer) for answer in takewhile(lambda answer: isinstance(answer, str), answers)]
        if ids and ids[0] <= self._last_id:
            self._rewind("stream ids decreased")
            return
        if ids:
            self._last_id = ids[-1]
            self._journal.mark_published(chunk, len(ids))
            self._published.inc(len(ids))
        if len(ids) < len(answers):  # such as OOM: this event and later ones are retried
            raise answers[len(ids)]

    async def _check(self) -> None:
        """Detect lost events, and delete old ones only if none were lost."""
        current = await run_id(self._redis, STREAM)
        if self._run_id not in (None, current):
            self._rewind("another server process")
        else:
            await self._compare_stream()
        self._run_id = current
        self._check_at_s = self._now() + CHECK_S
        self._clean_up()

    async def _compare_stream(self) -> None:
        """The last id and the number of entries ever added only grow, unless the stream was lost."""
        try:
            info = await self._redis.xinfo_stream(STREAM)
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            last_id, added = (0, 0), 0
        else:
            last_id, added = _parse_id(str(info["last-generated-id"])), int(info["entries-added"])
        if last_id < self._last_id or added < self._added:
            self._rewind("the stream lost entries")
        self._added = added

    def _clean_up(self) -> None:
        try:
            self._journal.adopt_orphans()
            self._journal.collect()
            self._is_clean = True
        except (OSError, sqlite3.Error) as error:
            if self._is_clean:
                log.warning("journal clean-up failed", error=str(error))
            self._is_clean = False

    def _rewind(self, reason: str) -> None:
        self._journal.rewind()
        self._last_id, self._added = (0, 0), 0
        self._rewinds.inc()
        log.warning("publishing kept events again", reason=reason)

    def _lost(self, error: Exception) -> None:
        if self.is_connected:
            unexpected = None if isinstance(error, REDIS_ERRORS) else error
            name = type(error).__name__
            log.warning("stream unreachable; events wait in the journal", error=name, exc_info=unexpected)
        self.is_connected = False


def _parse_id(stream_id: str) -> tuple[int, int]:
    ms, _, sequence = stream_id.partition("-")
    return int(ms), int(sequence)

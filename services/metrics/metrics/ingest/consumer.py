"""Moves events from the stream to PostgreSQL exactly once, whichever process is killed."""

import asyncio
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog

from metrics.errors import RowRefused, StoreTooSlow, StoreUnavailable, StreamUnavailable
from metrics.ingest.parse import Arrival, DeadLetter, Entry, sort_entries
from metrics.ingest.stream import StreamReader
from metrics.ingest.writer import EventWriter
from metrics.metrics import IngestionMetrics

log = structlog.get_logger()

DAY_US: Final = 86_400_000_000
_BACKOFF_MIN_S: Final = 0.1
_BACKOFF_MAX_S: Final = 5.0
_LINGER_S: Final = 0.5  # every transaction rewrites whole histograms, so events of this time share one


class Consumer:
    """Processes one batch at a time. While PostgreSQL is down it reads nothing more; the stream keeps the rest.

    Entries are acknowledged only after the COMMIT that stored them. After a crash in between, another consumer reads
    them again, and their event ids are already stored.
    """

    def __init__(
        self,
        stream: StreamReader,
        writer: EventWriter,
        metrics: IngestionMetrics,
        *,
        retention_days: int,
        now: Callable[[], float],
    ) -> None:
        self._stream = stream
        self._writer = writer
        self._metrics = metrics
        self._retention_us = retention_days * DAY_US
        self._now = now
        self._stopping = asyncio.Event()
        self._backoff_s = _BACKOFF_MIN_S
        self._is_away = False

    def stop(self) -> None:
        """Let `run` return once the current batch is settled, or at once if a store is down."""
        self._stopping.set()

    async def run(self) -> None:
        """Consume until `stop`. Errors do not end it: the entries of a failed batch are read again."""
        while not self._stopping.is_set():
            try:
                handled = await self.step()
            except Exception as error:
                await self._pause(error)
            else:
                if handled and not self._stream.is_behind:
                    await self._wait(_LINGER_S)

    async def step(self) -> int:
        """Read one batch and settle it. Returns the number of entries."""
        entries = await self._stream.next()
        if entries:
            with self._metrics.batch_seconds.time():
                await self._settle(entries)
            self._metrics.batch_events.observe(len(entries))
        self._set_away(None)
        return len(entries)

    async def _settle(self, entries: Sequence[Entry]) -> None:
        now_us = int(self._now() * 1_000_000)
        arrivals, dead = sort_entries(entries, now_us=now_us, oldest_us=now_us - self._retention_us)
        dead += await self._store(arrivals)
        filed = await self._stream.settle(entries, dead)
        for letter in filed:
            self._metrics.dead_letters[letter.reason].inc()
        if filed:
            log.warning("events set aside", count=len(filed), reasons=sorted({letter.reason for letter in filed}))

    async def _store(self, arrivals: Sequence[Arrival]) -> list[DeadLetter]:
        """Store all rows that PostgreSQL accepts. A batch that is rejected or too slow is halved."""
        if not arrivals:
            return []
        try:
            await self._write(arrivals)
        except RowRefused:
            if len(arrivals) == 1:
                return [DeadLetter(arrivals[0].entry, "refused")]
        except StoreTooSlow:
            if self._stopping.is_set():
                raise
        else:
            return []
        middle = len(arrivals) // 2
        return await self._store(arrivals[:middle]) + await self._store(arrivals[middle:])

    async def _write(self, arrivals: Sequence[Arrival]) -> None:
        """Write with retries. Raises RowRefused, StoreTooSlow for more than one row, StoreUnavailable on `stop`."""
        while True:
            try:
                written = await self._writer.write(arrival.event for arrival in arrivals)
            except StoreUnavailable as error:
                await self._pause(error)
                if self._stopping.is_set() or (isinstance(error, StoreTooSlow) and len(arrivals) > 1):
                    raise
            else:
                self._metrics.predictions.inc(written.predictions)
                self._metrics.counters.inc(written.counters)
                self._metrics.duplicates.inc(len(arrivals) - written.predictions - written.counters)
                return

    async def _pause(self, error: Exception) -> None:
        self._set_away(error)
        self._metrics.retries.inc()
        await self._wait(self._backoff_s * random.uniform(0.5, 1.0))
        if not self._stopping.is_set():
            self._backoff_s = min(self._backoff_s * 2, _BACKOFF_MAX_S)

    async def _wait(self, seconds: float) -> None:
        """Sleep, at most until `stop`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _set_away(self, error: Exception | None) -> None:
        if error is None:
            self._backoff_s = _BACKOFF_MIN_S
        if self._is_away != (error is not None):
            self._is_away = error is not None
            if error is None:
                log.info("ingestion goes on")
            else:
                expected = isinstance(error, StreamUnavailable | StoreUnavailable)
                name, unexpected = type(error).__name__, None if expected else error
                log.warning("ingestion waits for a store", error=name, reason=str(error), exc_info=unexpected)

"""Periodic work beside ingestion: trimming the stream, measuring its lag, and partitions."""

import asyncio
import math
import time
from typing import Final, NoReturn

import structlog

from metrics.errors import StoreUnavailable, StreamUnavailable
from metrics.ingest.stream import StreamAdmin
from metrics.metrics import MaintenanceMetrics
from metrics.storage.partitions import Partitions

log = structlog.get_logger()

LAG_TIMEOUT_S: Final = 0.5  # the longest that an aggregate waits to learn its lag
_STREAM_S: Final = 1.0
_RETRY_S: Final = 10.0


class Maintenance:
    """Runs in every replica. Its steps are idempotent."""

    def __init__(self, stream: StreamAdmin, partitions: Partitions, metrics: MaintenanceMetrics) -> None:
        self._stream = stream
        self._partitions = partitions
        self._metrics = metrics
        metrics.days_ahead.set_function(partitions.days_ahead)
        self._asking = asyncio.Lock()
        self._asked_s = -math.inf
        self._lag_s: float | None = None

    async def lag_s(self) -> float | None:
        """Return the seconds by which ingestion is behind.

        None while the stream is unavailable or read-only: events then wait in journals, which are not visible here.
        Concurrent callers share one Redis query.
        """
        wanted_s = time.monotonic()
        async with self._asking:
            if self._asked_s < wanted_s:
                asked_s = time.monotonic()
                age_s, takes_writes = await asyncio.gather(self._age_s(), self._takes_writes())
                self._asked_s, self._lag_s = asked_s, age_s if takes_writes else None
            return self._lag_s

    async def maintain(self) -> bool:
        """Maintain the partitions once. Returns whether every step succeeded. Raises no errors."""
        try:
            state = await self._partitions.maintain()
        except StoreUnavailable as error:
            log.warning("partitions not maintained", reason=str(error))
            return False
        except Exception:
            log.exception("partitions not maintained")
            return False
        self._metrics.partitions.set(state.partitions)
        self._metrics.default_rows.set(state.default_rows)
        return not state.failed

    async def watch_stream(self) -> NoReturn:
        """Measure the lag and trim the stream every second. A lasting error is logged once and does not end it."""
        is_refused = False
        while True:
            try:
                if await self._age_s() is not None:
                    await self._stream.tidy()
                    is_refused = False
            except StreamUnavailable as error:
                if not is_refused:
                    log.warning("stream not trimmed", reason=str(error))
                is_refused = True
            except Exception:
                log.exception("stream not trimmed")
            await asyncio.sleep(_STREAM_S)

    async def watch_partitions(self, interval_s: float) -> NoReturn:
        """Maintain the partitions every `interval_s`. After a failure, retry with growing delays.

        Each try makes writers wait for a lock that a backup may hold for hours.
        """
        retry_s = _RETRY_S
        while True:
            if await self.maintain():
                retry_s = _RETRY_S
                await asyncio.sleep(interval_s)
            else:
                await asyncio.sleep(min(retry_s, interval_s))
                retry_s *= 2

    async def _age_s(self) -> float | None:
        """Return the age of the oldest event in the stream, None while it is unavailable. Exports age and backlog."""
        try:
            async with asyncio.timeout(LAG_TIMEOUT_S):
                backlog = await self._stream.backlog()
        except (StreamUnavailable, TimeoutError):
            self._metrics.lag_entries.set(float("nan"))
            self._metrics.lag_seconds.set(float("nan"))
            return None
        self._metrics.lag_entries.set(float("nan") if backlog.entries is None else backlog.entries)
        self._metrics.lag_seconds.set(backlog.age_s)
        return backlog.age_s

    async def _takes_writes(self) -> bool:
        try:
            async with asyncio.timeout(LAG_TIMEOUT_S):
                await self._stream.check_writable()
        except (StreamUnavailable, TimeoutError):
            return False
        return True

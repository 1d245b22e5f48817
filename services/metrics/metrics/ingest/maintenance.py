"""What runs beside ingestion, now and then: the stream's tidying, its lag, and the partitions."""

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

LAG_TIMEOUT_S: Final = 0.5  # an aggregate does not wait longer to learn how stale it is
_STREAM_S: Final = 1.0
_RETRY_S: Final = 10.0


class Maintenance:
    """Every replica runs one; what they do twice does no harm."""

    def __init__(self, stream: StreamAdmin, partitions: Partitions, metrics: MaintenanceMetrics) -> None:
        self._stream = stream
        self._partitions = partitions
        self._metrics = metrics
        metrics.days_ahead.set_function(partitions.days_ahead)
        self._asking = asyncio.Lock()
        self._asked_s = -math.inf
        self._lag_s: float | None = None

    async def lag_s(self) -> float | None:
        """Seconds by which ingestion is behind; None while the stream can't be asked, or takes no writes: what waits
        in journals then is not known here.

        Of those who want to know at once one asks for all: a crowd has not as many connections to Redis.
        """
        wanted_s = time.monotonic()
        async with self._asking:
            if self._asked_s < wanted_s:
                asked_s = time.monotonic()
                age_s, takes_writes = await asyncio.gather(self._age_s(), self._takes_writes())
                self._asked_s, self._lag_s = asked_s, age_s if takes_writes else None
            return self._lag_s

    async def maintain(self) -> bool:
        """One round over the partitions; returns whether all of it could be done. No error ends it."""
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
        """Measure the lag and trim the stream, every second; no error ends it, and one that lasts is logged once."""
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
        """Maintain the partitions every `interval_s`, or soon again where that failed; ever later while it does, for
        with each try writers wait for a lock that a backup may hold for hours."""
        retry_s = _RETRY_S
        while True:
            if await self.maintain():
                retry_s = _RETRY_S
                await asyncio.sleep(interval_s)
            else:
                await asyncio.sleep(min(retry_s, interval_s))
                retry_s *= 2

    async def _age_s(self) -> float | None:
        """Of the oldest event in the stream, exported with their number; None while it can't be asked."""
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

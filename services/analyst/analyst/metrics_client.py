"""Reads aggregates and drift from the metrics service, within its own time limit; translates errors, caches nothing."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import structlog
from pydantic import BaseModel
from yarl import URL

from analyst.cache.single_flight import FlightFailed
from analyst.service import METRICS_BROKEN, METRICS_UNAVAILABLE, MetricsSnapshot
from common.contracts.aggregates import Aggregate, AggregateRequest, DriftReport
from common.contracts.windows import WINDOW_S
from common.http.client import UpstreamError, UpstreamMalformed, UpstreamRefused, call_json, create_session
from common.http.context import RequestContext, uuid7
from common.runtime.readiness import State
from common.runtime.tasks import cancel_and_wait

log = structlog.get_logger()

_BUSY = frozenset({429, 503, 504})


class _Count(BaseModel):
    count: int


@asynccontextmanager
async def open_metrics_client(url: str, timeout_s: float) -> AsyncIterator["MetricsClient"]:
    """A client with connections of its own."""
    async with create_session(connect_timeout_s=timeout_s) as session:
        yield MetricsClient(session, url, timeout_s)


class MetricsClient:
    """`timeout_s` replaces the caller's deadline: a flight serves others than the one who started it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, timeout_s: float) -> None:
        self._session = session
        self._url = url
        self._timeout_s = timeout_s
        self._drift_is_told = True

    async def measured(self, request: AggregateRequest, context: RequestContext) -> MetricsSnapshot:
        """The aggregate of both windows and, asked at the same time, the drift. Raises FlightFailed; without an answer
        about drift there is none.
        """
        own = context._replace(deadline_s=time.monotonic() + self._timeout_s)
        drift = asyncio.create_task(self._drift(request, own), name="drift")
        try:
            return MetricsSnapshot(await self._aggregated(request, own), await drift)
        finally:
            await cancel_and_wait(drift)

    async def _aggregated(self, request: AggregateRequest, context: RequestContext) -> Aggregate:
        url = f"{self._url}/metrics/aggregated"
        try:
            return await call_json(self._session, "POST", url, answer=Aggregate, context=context, body=request)
        except UpstreamError as error:
            raise FlightFailed(METRICS_UNAVAILABLE if _is_away(error) else METRICS_BROKEN) from error

    async def _drift(self, request: AggregateRequest, context: RequestContext) -> DriftReport | None:
        url = str(URL(f"{self._url}/metrics/drift").with_query(drift_query(request)))
        try:
            report = await call_json(self._session, "GET", url, answer=DriftReport, context=context)
        except UpstreamError as error:
            if self._drift_is_told:
                log.warning("drift not read: reports are made without", error=str(error))
            self._drift_is_told = False
            return None
        self._drift_is_told = True
        return report

    async def state(self) -> State:
        """Degraded while the service does not answer: reports from the cache are still served."""
        context = RequestContext(uuid7(), None, None, time.monotonic() + self._timeout_s)
        try:
            await call_json(self._session, "GET", f"{self._url}/metrics/count", answer=_Count, context=context)
        except UpstreamError:
            return "degraded"
        return "ok"


def drift_query(request: AggregateRequest) -> dict[str, str]:
    """The same time as the aggregate's, beside the day before it, or the week where it is longer than a day."""
    if request.start is not None and request.end is not None:
        length_s = (request.end - request.start).total_seconds()
        asked = {"start": request.start.isoformat(), "end": request.end.isoformat()}
    else:
        window = request.window or "1h"
        length_s = WINDOW_S[window]
        asked = {"window": window}
    return asked | {"reference": "24h" if length_s <= WINDOW_S["24h"] else "7d"}


def _is_away(error: UpstreamError) -> bool:
    """Whether it may be there again in a moment, or answers something that no retry mends."""
    if isinstance(error, UpstreamRefused):
        return error.status in _BUSY
    return not isinstance(error, UpstreamMalformed)

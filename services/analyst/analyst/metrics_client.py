"""Reads aggregates and drift from the metrics service, with its own timeout. Translates errors."""

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
    """Yield a client with separate connections."""
    async with create_session(connect_timeout_s=timeout_s) as session:
        yield MetricsClient(session, url, timeout_s)


class MetricsClient:
    """A client with its own `timeout_s`, because a computation also serves callers with other deadlines."""

    def __init__(self, session: aiohttp.ClientSession, url: str, timeout_s: float) -> None:
        self._session = session
        self._url = url
        self._timeout_s = timeout_s
        self._drift_is_told = True

    async def measured(self, request: AggregateRequest, context: RequestContext) -> MetricsSnapshot:
        """Return the aggregate of both windows and the drift, requested concurrently. Drift is None if unavailable.

        Raises FlightFailed.
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
        """Return `degraded` while the service is unavailable. Cached reports are still served."""
        context = RequestContext(uuid7(), None, None, time.monotonic() + self._timeout_s)
        try:
            await call_json(self._session, "GET", f"{self._url}/metrics/count", answer=_Count, context=context)
        except UpstreamError:
            return "degraded"
        return "ok"


def drift_query(request: AggregateRequest) -> dict[str, str]:
    """Return the drift query of a window: its reference is the day before, or the week if it is longer than a day."""
    if request.start is not None and request.end is not None:
        length_s = (request.end - request.start).total_seconds()
        asked = {"start": request.start.isoformat(), "end": request.end.isoformat()}
    else:
        window = request.window or "1h"
        length_s = WINDOW_S[window]
        asked = {"window": window}
    return asked | {"reference": "24h" if length_s <= WINDOW_S["24h"] else "7d"}


def _is_away(error: UpstreamError) -> bool:
    """Return whether the error is temporary, so that a retry may help."""
    if isinstance(error, UpstreamRefused):
        return error.status in _BUSY
    return not isinstance(error, UpstreamMalformed)

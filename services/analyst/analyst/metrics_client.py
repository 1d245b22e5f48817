"""Reads aggregates from the metrics service, within its own time limit; translates what goes wrong, caches nothing."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
from pydantic import BaseModel, ValidationError

from analyst.analysis import METRICS_BROKEN, METRICS_UNAVAILABLE
from analyst.flight import FlightFailed
from common.client import UpstreamError, UpstreamRefused, UpstreamTimeout, call_json, create_session
from common.contracts import Aggregate, AggregateRequest
from common.ops import State
from common.requests import RequestContext, uuid7

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

    def __init__(
        self, session: aiohttp.ClientSession, url: str, timeout_s: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._session = session
        self._url = url
        self._timeout_s = timeout_s
        self._now = now

    async def aggregated(self, request: AggregateRequest, context: RequestContext) -> Aggregate:
        """Both windows in one call. Raises FlightFailed."""
        own = replace(context, deadline_s=self._now() + self._timeout_s)
        url = f"{self._url}/metrics/aggregated"
        try:
            return await call_json(self._session, "POST", url, answer=Aggregate, context=own, body=request)
        except UpstreamError as error:
            raise FlightFailed(METRICS_UNAVAILABLE if _is_away(error) else METRICS_BROKEN) from error

    async def state(self) -> State:
        """Degraded while the service does not answer: reports from the cache are still served."""
        context = RequestContext(uuid7(), None, None, self._now() + self._timeout_s)
        try:
            await call_json(self._session, "GET", f"{self._url}/metrics/count", answer=_Count, context=context)
        except UpstreamError:
            return "degraded"
        return "ok"


def _is_away(error: UpstreamError) -> bool:
    """Whether it may be there again in a moment, or answers something that no retry mends."""
    if isinstance(error, UpstreamRefused):
        return error.status in _BUSY
    return isinstance(error, UpstreamTimeout) or not isinstance(error.__cause__, ValidationError)

"""Reports whether the edge can serve: its stores and the services behind it, probed at most once a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

from pydantic import BaseModel
from redis.asyncio import Redis

from common.contracts.events import STREAM
from common.contracts.reports import AnalystHealth, ModelHealth
from common.stores.redis import check_writable
from edge_limiter.upstream.client import UpstreamClient
from edge_limiter.upstream.errors import BadGateway

Status = Literal["ok", "degraded", "failed"]
Probe = Callable[[], Awaitable[float]]
"""Returns the milliseconds that it took. Any exception means that the part is down."""
AnalystProbe = Callable[[], Awaitable[AnalystHealth]]

CACHE_S: Final = 1.0
TIMEOUT_S: Final = 1.0


class Part(BaseModel):
    """The log has the reason for `down`. Redis is also down while it rejects writes."""

    status: Literal["ok", "down"]
    latency_ms: float | None = None


class Health(BaseModel):
    """`degraded`: a part is down and the edge works without it. `failed`: predictions cannot be answered.

    `model` is the last known state of the model that writes the analyst's reports; null while the analyst is down.
    """

    status: Status
    database: Part
    redis: Part
    limits: Literal["exact", "local", "open", "closed"]
    upstreams: dict[str, Part]
    model: ModelHealth | None = None


class HealthReport:
    """Probes all parts at once, and caches the result for a second so that clients cannot flood the stores."""

    def __init__(
        self,
        *,
        database: Probe,
        redis: Probe,
        upstreams: Mapping[str, Probe],
        analyst: AnalystProbe,
        limits: Callable[[], Literal["exact", "local", "open", "closed"]],
        required: str,
    ) -> None:
        self._probes = {"database": database, "redis": redis, **upstreams}
        self._upstreams = tuple(upstreams)
        self._analyst = analyst
        self._limits = limits
        self._required = required
        self._lock = asyncio.Lock()
        self._cached: tuple[float, Health] | None = None

    async def read(self) -> Health:
        """Return the state, at most a second old."""
        async with self._lock:
            if self._cached is None or time.monotonic() - self._cached[0] > CACHE_S:
                health = await self._probe()
                self._cached = (time.monotonic(), health)
            return self._cached[1]

    async def _probe(self) -> Health:
        probes = asyncio.gather(*map(_probe_part, self._probes.values()))
        results, analyst = await asyncio.gather(probes, _probe_analyst(self._analyst))
        parts = dict(zip(self._probes, results, strict=True))
        limits = self._limits()
        status: Status = "ok"
        if limits != "exact" or any(part.status == "down" for part in parts.values()):
            status = "degraded"
        if analyst is not None and analyst.status == "degraded":
            status = "degraded"
        if limits == "closed" or parts[self._required].status == "down":
            status = "failed"
        return Health(
            status=status,
            database=parts["database"],
            redis=parts["redis"],
            limits=limits,
            upstreams={name: parts[name] for name in self._upstreams},
            model=analyst.model if analyst is not None else None,
        )


async def _probe_part(probe: Probe) -> Part:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return Part(status="ok", latency_ms=round(await probe(), 2))
    except Exception:  # any error means that the part is down; each adapter logs its own
        return Part(status="down")


async def _probe_analyst(probe: AnalystProbe) -> AnalystHealth | None:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await probe()
    except Exception:  # its part of `upstreams` shows that it is down
        return None


def redis_probe(redis: Redis) -> Probe:
    """Return a probe that writes to the stream's server."""

    async def probe() -> float:
        started = time.perf_counter()
        await check_writable(redis, STREAM)
        return (time.perf_counter() - started) * 1000

    return probe


def upstream_probe(upstream: UpstreamClient, path: str) -> Probe:
    """Return a probe that requests `path` of a service."""

    async def probe() -> float:
        started = time.perf_counter()
        with await upstream("HEAD", path, [], b"", TIMEOUT_S) as response:
            if response.status >= 500:
                raise BadGateway
        return (time.perf_counter() - started) * 1000

    return probe


def analyst_probe(upstream: UpstreamClient) -> AnalystProbe:
    """Return a probe that reads the analyst's own health."""

    async def probe() -> AnalystHealth:
        with await upstream("GET", "/analyze/health", [], b"", TIMEOUT_S) as response:
            return AnalystHealth.model_validate_json(await response.read())

    return probe

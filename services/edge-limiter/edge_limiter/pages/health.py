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
from edge_limiter.proxy.routes import ANALYST, INFERENCE
from edge_limiter.upstream.client import UpstreamClient
from edge_limiter.upstream.errors import BadGateway

Status = Literal["ok", "degraded", "failed"]
Limits = Literal["exact", "local", "open", "closed"]
Probe = Callable[[], Awaitable[object]]
"""Returns when the part has answered, the analyst's with its own health. Any exception means that the part is down."""

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
    limits: Limits
    upstreams: dict[str, Part]
    model: ModelHealth | None = None


class HealthReport:
    """Probes all parts at once, and caches the result for a second so that clients cannot flood the stores."""

    def __init__(
        self, *, database: Probe, redis: Probe, upstreams: Mapping[str, Probe], limits: Callable[[], Limits]
    ) -> None:
        self._probes = {"database": database, "redis": redis, **upstreams}
        self._limits = limits
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
        results = await asyncio.gather(*map(_probe_part, self._probes.values()))
        parts = {name: part for name, (part, _) in zip(self._probes, results, strict=True)}
        analyst = next((answer for _, answer in results if isinstance(answer, AnalystHealth)), None)
        limits = self._limits()
        return Health(
            status=_status(parts, limits, analyst),
            database=parts.pop("database"),
            redis=parts.pop("redis"),
            limits=limits,
            upstreams=parts,
            model=analyst.model if analyst is not None else None,
        )


def _status(parts: Mapping[str, Part], limits: Limits, analyst: AnalystHealth | None) -> Status:
    if limits == "closed" or parts[INFERENCE].status == "down":
        return "failed"
    if limits != "exact" or any(part.status == "down" for part in parts.values()):
        return "degraded"
    return "ok" if analyst is None else analyst.status


async def _probe_part(probe: Probe) -> tuple[Part, object]:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            answer = await probe()
    except Exception:  # any error means that the part is down; each adapter logs its own
        return Part(status="down"), None
    return Part(status="ok", latency_ms=round((time.perf_counter() - started) * 1000, 2)), answer


def redis_probe(redis: Redis) -> Probe:
    """Return a probe that writes to the stream's server."""
    return lambda: check_writable(redis, STREAM)


def upstream_probe(name: str, upstream: UpstreamClient) -> Probe:
    """Return a probe of a service: whether inference has its model, the analyst's own health, or any answer."""

    async def probe() -> AnalystHealth | None:
        if name == ANALYST:
            with await upstream("GET", "/analyze/health", [], b"", TIMEOUT_S) as response:
                return AnalystHealth.model_validate_json(await response.read())
        path = "/v2/health/ready" if name == INFERENCE else "/openapi.json"
        with await upstream("HEAD", path, [], b"", TIMEOUT_S) as response:
            if response.status >= 500:
                raise BadGateway
        return None

    return probe

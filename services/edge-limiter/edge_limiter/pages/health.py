"""Whether the edge can serve: its stores and the services behind it, asked at most once a second."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Literal

from pydantic import BaseModel

from common.contracts.reports import AnalystHealth, ModelHealth

Status = Literal["ok", "degraded", "failed"]
Probe = Callable[[], Awaitable[float]]
"""Returns the milliseconds it took; raises whatever went wrong."""
AskAnalyst = Callable[[], Awaitable[AnalystHealth]]
"""Raises whatever went wrong."""

KEEP_S: Final = 1.0
TIMEOUT_S: Final = 1.0


class Part(BaseModel):
    """`down` says nothing of why: that is in the log. Redis is down, too, while it takes no writes."""

    status: Literal["ok", "down"]
    latency_ms: float | None = None


class Health(BaseModel):
    """`degraded`: a part is away and the edge answers without it; `failed`: predictions cannot be answered.

    `model` is what the analyst last saw of the model that writes its reports; null while the analyst is away.
    """

    status: Status
    database: Part
    redis: Part
    limits: Literal["exact", "local", "open", "closed"]
    upstreams: dict[str, Part]
    model: ModelHealth | None = None


class HealthReport:
    """Asks all parts at once and keeps the answer for a second, so that nobody can flood the stores through it."""

    def __init__(
        self,
        *,
        database: Probe,
        redis: Probe,
        upstreams: Mapping[str, Probe],
        analyst: AskAnalyst,
        limits: Callable[[], Literal["exact", "local", "open", "closed"]],
        required: str,
    ) -> None:
        self._probes = {"database": database, "redis": redis, **upstreams}
        self._upstreams = tuple(upstreams)
        self._analyst = analyst
        self._limits = limits
        self._required = required
        self._lock = asyncio.Lock()
        self._kept: tuple[float, Health] | None = None

    async def read(self) -> Health:
        """The state of at most a second ago."""
        async with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] > KEEP_S:
                health = await self._ask()
                self._kept = (time.monotonic(), health)
            return self._kept[1]

    async def _ask(self) -> Health:
        asked = asyncio.gather(*map(_ask_part, self._probes.values()))
        answers, analyst = await asyncio.gather(asked, _ask_analyst(self._analyst))
        parts = dict(zip(self._probes, answers, strict=True))
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


async def _ask_part(probe: Probe) -> Part:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return Part(status="ok", latency_ms=round(await probe(), 2))
    except Exception:  # whatever it is, the part is down; each adapter logs its own troubles
        return Part(status="down")


async def _ask_analyst(ask: AskAnalyst) -> AnalystHealth | None:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await ask()
    except Exception:  # its upstream part says that it is down
        return None

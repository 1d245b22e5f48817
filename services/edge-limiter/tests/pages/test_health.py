"""Which parts may be down, and that many requests cost the parts as much as one."""

import asyncio
from collections import Counter

import pytest

from common.contracts.reports import AnalystHealth, ModelHealth
from edge_limiter.pages.health import HealthReport, Limits, Probe

OK = AnalystHealth(status="ok", model=ModelHealth(name=None, state="no_key"))
RETIRED = AnalystHealth(status="degraded", model=ModelHealth(name="gone", state="not_found"))
PARTS = ("database", "redis", "inference", "metrics", "analyst")


class Parts:
    """Parts that all answer at once, except those that are down, which raise, and those that hang."""

    def __init__(self, *down: str, hang: tuple[str, ...] = (), analyst: AnalystHealth = OK) -> None:
        self.down, self.hang, self.analyst = down, hang, analyst
        self.probed: Counter[str] = Counter()
        self.meet = asyncio.Barrier(len(PARTS))

    def probe(self, name: str) -> Probe:
        async def probe() -> AnalystHealth | None:
            self.probed[name] += 1
            await self.meet.wait()
            if name in self.hang:
                await asyncio.Event().wait()
            if name in self.down:
                raise ConnectionError
            return self.analyst if name == "analyst" else None

        return probe

    def report(self, limits: Limits = "exact") -> HealthReport:
        database, redis, *upstreams = PARTS
        return HealthReport(
            database=self.probe(database),
            redis=self.probe(redis),
            upstreams={name: self.probe(name) for name in upstreams},
            limits=lambda: limits,
        )


@pytest.mark.parametrize(
    ("parts", "limits", "status"),
    [
        (Parts(), "exact", "ok"),
        (Parts(), "local", "degraded"),
        (Parts(), "open", "degraded"),
        (Parts(), "closed", "failed"),
        (Parts("database"), "exact", "degraded"),
        (Parts("redis"), "exact", "degraded"),
        (Parts("metrics"), "exact", "degraded"),
        (Parts("analyst"), "exact", "degraded"),
        (Parts("inference"), "exact", "failed"),
        (Parts(analyst=RETIRED), "exact", "degraded"),
        (Parts("inference", analyst=RETIRED), "exact", "failed"),
    ],
)
async def test_status__is_that_of_what_predictions_need(parts: Parts, limits: Limits, status: str) -> None:
    assert (await parts.report(limits).read()).status == status


async def test_many_requests__probe_each_part_once_until_the_report_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    report = parts.report()
    monkeypatch.setattr("edge_limiter.pages.health.CACHE_S", 3600.0)
    await asyncio.gather(*(report.read() for _ in range(10)))
    assert await report.read() is await report.read()
    assert set(parts.probed.values()) == {1}
    monkeypatch.setattr("edge_limiter.pages.health.CACHE_S", 0.0)
    await report.read()
    assert set(parts.probed.values()) == {2}


async def test_parts_that_hang__are_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_limiter.pages.health.TIMEOUT_S", 0.05)
    async with asyncio.timeout(60):
        health = await Parts(hang=("database", "redis", "metrics", "analyst")).report().read()
    assert {health.database.status, health.redis.status, health.upstreams["metrics"].status} == {"down"}
    assert (health.upstreams["inference"].status, health.status, health.model) == ("ok", "degraded", None)

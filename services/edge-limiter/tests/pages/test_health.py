"""Which parts may be down, and that many requests cost the parts as much as one."""

import asyncio
from collections import Counter
from typing import Any, Literal

import pytest

from common.contracts.reports import AnalystHealth, ModelHealth
from edge_limiter.pages.health import HealthReport

Limits = Literal["exact", "local", "open", "closed"]
RETIRED = AnalystHealth(status="degraded", model=ModelHealth(name="gone", state="not_found"))


class Parts:
    """Parts that answer at once but for those that are down, which raise, and those that hang."""

    def __init__(self, *down: str, hang: tuple[str, ...] = (), analyst: AnalystHealth | None = None) -> None:
        self.down, self.hang, self.analyst = down, hang, analyst
        self.asked: Counter[str] = Counter()
        self.meet: asyncio.Barrier | None = None

    async def ask(self, name: str, answer: Any) -> Any:
        self.asked[name] += 1
        if self.meet is not None:
            await self.meet.wait()
        if name in self.hang:
            await asyncio.Event().wait()
        if name in self.down or answer is None:
            raise ConnectionError
        return answer

    def report(self, limits: Limits = "exact") -> HealthReport:
        return HealthReport(
            database=lambda: self.ask("database", 1.0),
            redis=lambda: self.ask("redis", 1.0),
            upstreams={"inference": lambda: self.ask("inference", 1.0), "metrics": lambda: self.ask("metrics", 1.0)},
            analyst=lambda: self.ask("analyst", self.analyst),
            limits=lambda: limits,
            required="inference",
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
        (Parts("inference"), "exact", "failed"),
        (Parts(analyst=RETIRED), "exact", "degraded"),
        (Parts("inference", analyst=RETIRED), "exact", "failed"),
    ],
)
async def test_status__is_that_of_what_predictions_need(parts: Parts, limits: Limits, status: str) -> None:
    assert (await parts.report(limits).read()).status == status


async def test_many_who_ask__cost_each_part_one_question_until_the_answer_is_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = Parts(analyst=RETIRED)
    report = parts.report()
    monkeypatch.setattr("edge_limiter.pages.health.CACHE_S", 3600.0)
    await asyncio.gather(*(report.read() for _ in range(10)))
    assert await report.read() is await report.read()
    assert set(parts.asked.values()) == {1}
    monkeypatch.setattr("edge_limiter.pages.health.CACHE_S", 0.0)
    await report.read()
    assert set(parts.asked.values()) == {2}


async def test_parts__are_asked_at_once() -> None:
    parts = Parts(analyst=AnalystHealth(status="ok", model=ModelHealth(name=None, state="no_key")))
    parts.meet = asyncio.Barrier(5)
    async with asyncio.timeout(60):
        assert (await parts.report().read()).status == "ok"


async def test_parts_that_hang__are_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_limiter.pages.health.TIMEOUT_S", 0.05)
    async with asyncio.timeout(60):
        health = await Parts(hang=("database", "redis", "metrics", "analyst")).report().read()
    assert {health.database.status, health.redis.status, health.upstreams["metrics"].status} == {"down"}
    assert (health.upstreams["inference"].status, health.status, health.model) == ("ok", "degraded", None)

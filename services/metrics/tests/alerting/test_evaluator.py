"""Rules are evaluated over real rows with a controlled clock: alerts change at the right second, in one replica."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from common.contracts.thresholds import Alert, ThresholdRule
from common.runtime import tasks
from metrics.alerting.evaluator import HISTORY_S, Evaluator
from metrics.alerting.rule_store import ThresholdStore
from metrics.alerting.rules import Thresholds
from metrics.alerting.store import GRACE_S, AlertStore
from metrics.ingest.writer import EventWriter
from metrics.metrics import AlertMetrics
from metrics.storage.database import Connection, Database

RULE = {
    "name": "errors", "metric": "error_rate", "above": 0.5, "resolve_at": 0.2, "for_s": 60, "keep_firing_for_s": 30,
    "min_samples": 4, "window": "5m",
}  # fmt: skip


async def no_lag() -> float | None:
    return 0.0


@pytest.fixture
def evaluator(database: Database, clock: Any) -> Callable[..., Evaluator]:
    """Returns a function that creates the evaluator of a replica."""
    return lambda interval_s=5, notifies=True, lag_s=no_lag: Evaluator(
        database, AlertMetrics(CollectorRegistry()), interval_s=interval_s, notifies=notifies, lag_s=lag_s, now=clock
    )


@pytest.fixture
def store(database: Database, clock: Any) -> AlertStore:
    return AlertStore(database, interval_s=5, now=clock)


@pytest.fixture
def ruled(database: Database) -> Callable[..., Any]:
    """Returns a function that saves rules."""

    async def put(*rules: dict[str, Any]) -> None:
        document = Thresholds(rules=[ThresholdRule.model_validate(rule) for rule in rules])
        await ThresholdStore(database).replace(document, expected=None)

    return put


@pytest.fixture
def happened(database: Database, clock: Any, prediction: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function that stores events with these outcomes at the current time."""

    async def write(*outcomes: str) -> None:
        now_us = int(clock() * 1_000_000)
        await EventWriter(database).write(
            [prediction(outcome=outcome, at_us=now_us - 1 - n) for n, outcome in enumerate(outcomes)]
        )

    return write


@pytest.fixture
def at(clock: Any, evaluator: Callable[..., Evaluator], store: AlertStore) -> Callable[..., Any]:
    """Returns a function that moves the clock to a second, evaluates, and returns the alerts' states."""
    start_s = clock()

    async def states(seconds: float) -> list[str]:
        clock.now_s = start_s + seconds
        assert await evaluator().evaluate()
        return [alert.state for alert in (await store.alerts()).alerts]

    return states


async def test_rules_that_nobody_judges__are_overdue(at: Callable[..., Any], store: AlertStore, clock: Any) -> None:
    assert (await store.alerts()).overdue  # never evaluated yet
    await at(0)
    assert not (await store.alerts()).overdue
    clock.now_s += 3 * 5 + GRACE_S + 1
    assert (await store.alerts()).overdue


async def test_alert__goes_through_its_states_at_the_right_seconds(
    ruled: Callable[..., Any], happened: Callable[..., Any], at: Callable[..., Any], store: AlertStore
) -> None:
    await ruled(RULE)
    assert await at(0) == []
    await happened(*["error"] * 3, "ok")
    assert await at(5) == ["pending"]
    assert await at(60) == ["pending"]
    assert await at(65) == ["firing"]
    await happened(*["ok"] * 11)
    assert await at(70) == ["firing"]  # 3 of 15: healthy
    assert await at(95) == ["firing"]
    assert await at(100) == ["resolved"]
    [alert] = (await store.alerts()).alerts
    assert alert.firing_at is not None and alert.resolved_at is not None
    assert (alert.firing_at - alert.pending_at).total_seconds() == 60
    assert (alert.resolved_at - alert.firing_at).total_seconds() == 35


async def test_window_that_ran_empty__keeps_the_alert(
    ruled: Callable[..., Any], happened: Callable[..., Any], at: Callable[..., Any]
) -> None:
    await ruled(RULE | {"for_s": 0, "keep_firing_for_s": 0})
    await happened(*["error"] * 4)
    assert await at(1) == ["firing"]
    assert await at(1_000) == ["firing"]
    await happened(*["ok"] * 3)
    assert await at(1_005) == ["firing"]  # too few samples to resolve
    await happened("ok")
    assert await at(1_010) == ["resolved"]


async def test_count_of_what_is_late__neither_fires_nor_resolves(
    ruled: Callable[..., Any],
    happened: Callable[..., Any],
    at: Callable[..., Any],
    evaluator: Callable[..., Evaluator],
    store: AlertStore,
    clock: Any,
) -> None:
    """While Redis is down no events arrive, although requests are answered."""

    async def unknown() -> None:
        return None

    count = {"metric": "requests", "window": "5m"}
    await ruled(count | {"name": "idle", "below": 2}, count | {"name": "busy", "above": 2})
    await happened("ok", "ok", "ok")
    assert await at(1) == ["firing"]  # busy
    clock.now_s += 1_000
    assert await evaluator(lag_s=unknown).evaluate()
    assert [(one.rule.name, one.state) for one in (await store.alerts()).alerts] == [("busy", "firing")]
    assert sorted(await at(1_010)) == ["firing", "resolved"]


async def test_rule_that_is_taken_away__resolves_its_alert_and_forgets_a_pending_one(
    ruled: Callable[..., Any], happened: Callable[..., Any], at: Callable[..., Any]
) -> None:
    await ruled(RULE | {"for_s": 0}, RULE | {"name": "slow-to-fire"})
    await happened(*["error"] * 4)
    assert await at(1) == ["firing", "pending"]
    await ruled()
    assert await at(6) == ["resolved"]


async def test_alert_of_a_rule__can_fire_again(
    ruled: Callable[..., Any], happened: Callable[..., Any], at: Callable[..., Any]
) -> None:
    await ruled(RULE | {"for_s": 0, "keep_firing_for_s": 0})
    await happened(*["error"] * 4)
    assert await at(1) == ["firing"]
    await happened(*["ok"] * 30)
    assert await at(6) == ["resolved"]
    await happened(*["error"] * 100)
    assert await at(11) == ["firing", "resolved"]


async def test_old_history__is_dropped(
    ruled: Callable[..., Any], happened: Callable[..., Any], at: Callable[..., Any]
) -> None:
    await ruled(RULE | {"for_s": 0})
    await happened(*["error"] * 4)
    assert await at(1) == ["firing"]
    await ruled()
    assert await at(6) == ["resolved"]
    assert await at(HISTORY_S + 5) == ["resolved"]
    assert await at(HISTORY_S + 20) == []


async def test_replicas__judge_each_tick_once_and_queue_one_notification(
    ruled: Callable[..., Any],
    happened: Callable[..., Any],
    evaluator: Callable[..., Evaluator],
    rows: Callable[..., Any],
    clock: Any,
) -> None:
    await ruled(RULE | {"for_s": 0})
    await happened(*["error"] * 4)
    for _ in range(3):
        assert sum(await asyncio.gather(*(evaluator().evaluate() for _ in range(4)))) == 1
        assert not await evaluator().evaluate()
        clock.now_s += 5
    assert await rows("SELECT count(*) FROM alert") == [(1,)]
    assert await rows("SELECT count(*) FROM notification") == [(1,)]


async def test_replica_that_stood_still__judges_nothing_by_the_time_before(
    ruled: Callable[..., Any], happened: Callable[..., Any], at: Callable[..., Any], database: Database, clock: Any
) -> None:
    async def meanwhile() -> None:
        await happened(*["ok"] * 20)
        assert await at(20) == []
        await happened(*["error"] * 40)
        assert await at(80) == ["pending"]

    await ruled(RULE)
    await happened(*["error"] * 4)
    assert await at(10) == ["pending"]
    metrics = AlertMetrics(CollectorRegistry())
    behind: Any = Late(database, meanwhile)
    late = Evaluator(behind, metrics, interval_s=5, notifies=True, lag_s=no_lag, now=clock)
    assert not await late.evaluate()
    assert await at(85) == ["pending"]
    assert await at(140) == ["firing"]


class Late:
    """A database whose transactions begin late, as if the process had been paused."""

    def __init__(self, database: Database, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._meanwhile = meanwhile

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        await self._meanwhile()
        async with self._database.transaction() as connection:
            yield connection


@pytest.mark.parametrize("interval_s", [1, 60, 3_600])
async def test_other_interval__is_judged_from_its_next_tick_on(
    evaluator: Callable[..., Evaluator], clock: Any, interval_s: float
) -> None:
    assert await evaluator(5).evaluate()
    clock.now_s += interval_s
    assert await evaluator(interval_s).evaluate()
    assert not await evaluator(interval_s).evaluate()
    clock.now_s += 5
    assert await evaluator(5).evaluate()


async def test_clock_that_is_set_back__judges_on(
    ruled: Callable[..., Any], happened: Callable[..., Any], at: Callable[..., Any]
) -> None:
    await ruled(RULE)
    assert await at(86_400) == []
    await happened(*["error"] * 4)
    assert await at(86_405) == ["pending"]
    assert await at(0) == ["pending"]  # an empty window does not resolve an alert
    await happened(*["error"] * 4)
    assert await at(5) == ["pending"]
    assert await at(65) == ["firing"]


async def test_clock_of_another_replica_that_is_a_little_slow__judges_no_tick_again(
    evaluator: Callable[..., Evaluator], clock: Any
) -> None:
    assert await evaluator().evaluate()
    clock.now_s -= 30
    assert not await evaluator().evaluate()


async def test_error_that_nobody_expected__does_not_end_the_watch(
    database: Database, happened: Callable[..., Any], rows: Callable[..., Any], store: AlertStore, clock: Any
) -> None:
    await rows("INSERT INTO threshold_document (version, document) VALUES (1, '{}')")
    await happened(*["error"] * 4)
    registry = CollectorRegistry()
    evaluator = Evaluator(database, AlertMetrics(registry), interval_s=0.01, notifies=True, lag_s=no_lag, now=clock)
    watching = asyncio.create_task(evaluator.watch())
    try:
        async with asyncio.timeout(20):
            while not registry.get_sample_value("sluice_metrics_evaluation_failures_total"):
                await asyncio.sleep(0)
            document = Thresholds(rules=[ThresholdRule.model_validate(RULE)]).model_dump_json(exclude_none=True)
            await rows("INSERT INTO threshold_document (version, document) VALUES (2, $1)", document)
            while not (await store.alerts()).alerts:
                clock.now_s += 0.01  # small steps keep the events inside the rule's window
    finally:
        await tasks.cancel_and_wait(watching)


async def test_drift_of_labels__can_fire(
    ruled: Callable[..., Any],
    database: Database,
    prediction: Callable[..., Any],
    clock: Any,
    at: Callable[..., Any],
    store: AlertStore,
) -> None:
    await ruled({"name": "mix", "metric": "drift.labels", "above": 0.1, "min_samples": 50, "reference": "1h"})
    now_us = int(clock() * 1_000_000)
    before = [prediction(at_us=now_us - 1_200_000_000, label="PN"[n % 2]) for n in range(400)]
    await EventWriter(database).write(before + [prediction(at_us=now_us - 1, label="P") for _ in range(200)])
    assert await at(1) == ["firing"]
    [alert] = (await store.alerts()).alerts
    assert isinstance(alert, Alert) and alert.value is not None and alert.value > 0.3


async def test_label_share_with_a_filter__fires_and_resolves_and_is_exported(
    ruled: Callable[..., Any], database: Database, prediction: Callable[..., Any], clock: Any, store: AlertStore
) -> None:
    where = {"label": "NEGATIVE", "route": "/predict"}
    await ruled(
        {"name": "gloom", "metric": "label_share", "above": 0.4, "for_s": 60, "min_samples": 4, "where": where},
        {"name": "busy", "metric": "requests", "above": 1_000, "where": {"route": "/other"}},
    )
    registry, start_s = CollectorRegistry(), clock()
    evaluator = Evaluator(database, AlertMetrics(registry), interval_s=5, notifies=True, lag_s=no_lag, now=clock)

    async def states_after(seconds: float, *labels: str) -> list[str]:
        clock.now_s = start_s + seconds
        now_us = int(clock() * 1_000_000)
        events = [prediction(at_us=now_us - 1, label=label) for label in labels]
        others = [prediction(at_us=now_us - 1, label="POSITIVE", route="/other") for _ in range(9)]
        await EventWriter(database).write([*events, *others])
        assert await evaluator.evaluate()
        return [alert.state for alert in (await store.alerts()).alerts]

    def exported(rule: str, metric: str, route: str, label: str = "") -> float | None:
        labels = {"rule": rule, "metric": metric, "severity": "warning", "model": "", "route": route, "label": label}
        return registry.get_sample_value("sluice_metrics_rule_value", labels)

    assert await states_after(0, *["NEGATIVE"] * 2, *["POSITIVE"] * 2) == ["pending"]
    assert exported("gloom", "label_share", "/predict", "NEGATIVE") == 0.5
    assert exported("busy", "requests", "/other") == 9
    assert await states_after(55) == ["pending"]
    assert await states_after(60) == ["firing"]
    assert await states_after(65, *["POSITIVE"] * 4) == ["resolved"]
    [alert] = (await store.alerts()).alerts
    assert alert.value == 0.25

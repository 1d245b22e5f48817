"""Evaluates the threshold rules on a timer, one replica per tick, and stores the state of their alerts."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NoReturn

import structlog

from common.contracts.thresholds import ThresholdState
from metrics.alerting import outbox, store
from metrics.alerting.rule_evaluation import evaluate_rules
from metrics.alerting.rule_store import newest
from metrics.alerting.rules import suppress_while_lagging
from metrics.alerting.state import AlertInstance, fingerprint, resolve, transition
from metrics.errors import StoreUnavailable
from metrics.metrics import AlertMetrics
from metrics.query.rollups import Snapshot
from metrics.ranges import SECOND
from metrics.storage.database import Connection, Database

log = structlog.get_logger()

HISTORY_S: Final = 90 * 86_400


class Evaluator:
    """The decisions of a tick and their notifications are one transaction. `notifies`: there is a webhook."""

    def __init__(
        self,
        database: Database,
        metrics: AlertMetrics,
        *,
        interval_s: float,
        notifies: bool,
        lag_s: Callable[[], Awaitable[float | None]],
        now: Callable[[], float],
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._interval_s = interval_s
        self._notifies = notifies
        self._lag_s = lag_s
        self._now = now

    async def watch(self) -> NoReturn:
        """Evaluate every interval. No error ends it, because alerts must survive an outage of PostgreSQL."""
        was_unavailable = False
        while True:
            try:
                await self.evaluate()
                was_unavailable = False
            except StoreUnavailable as error:
                self._metrics.failures.inc()
                if not was_unavailable:
                    log.warning("rules not evaluated", reason=str(error))
                was_unavailable = True
            except Exception:
                self._metrics.failures.inc()
                log.exception("rules not evaluated")
            await asyncio.sleep(self._interval_s)

    async def evaluate(self) -> bool:
        """Evaluate every rule, unless another replica did in this tick. Returns whether this one did."""
        states = await self._evaluate()
        self._metrics.set_rules(states or ())
        return states is not None

    async def _evaluate(self) -> list[ThresholdState] | None:
        lag_s = await self._lag_s()
        async with self._database.transaction() as connection:
            if not await store.try_evaluation_lock(connection):
                return None
            now_us, interval_us = int(self._now() * SECOND), int(self._interval_s * SECOND)
            if not await store.claim_tick(connection, interval_us, now_us):
                return None
            rules = (await newest(connection)).document.rules
            states = await evaluate_rules(Snapshot(connection), rules, now_us)
            known = [suppress_while_lagging(state, lag_s) for state in states]
            changed = await self._advance(connection, known, now_us)
            if self._notifies:
                for alert in await store.mark_notified(connection):
                    await outbox.put(connection, alert, now_us)
            await store.forget_resolved(connection, now_us - HISTORY_S * SECOND)
        self._metrics.evaluations.inc()
        for alert in changed:
            self._metrics.transitions[alert.state].inc()
            log.info("alert", rule=alert.rule.name, state=alert.state, value=alert.value)
        return states

    async def _advance(
        self, connection: Connection, states: Sequence[ThresholdState], now_us: int
    ) -> list[AlertInstance]:
        """Store what changed. Returns the alerts that entered another state."""
        before = await store.unresolved(connection)
        after = {
            (key := fingerprint(state.rule)): transition(before.get(key), state, now_us, interval_s=self._interval_s)
            for state in states
        }
        after |= {key: resolve(alert, now_us) for key, alert in before.items() if key not in after}
        changed = []
        for key, alert in after.items():
            old = before.get(key)
            if alert is not None and alert != old:
                await store.save(connection, alert)
            elif alert is None and old is not None:
                await store.forget(connection, old)
            if alert is not None and (old is None or alert.state != old.state):
                changed.append(alert)
        return changed

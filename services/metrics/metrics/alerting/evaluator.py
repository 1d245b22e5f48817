"""Judges the threshold rules on a timer, one replica a tick, and keeps what becomes of their alerts."""

import asyncio
import math
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
_SETTLES_S: Final = 10.0  # once Redis is back, who has events for it tries again after at most five


class Evaluator:
    """What a tick decides, and the notifications of it, are one transaction.

    While some replicas have a webhook and others not yet, or no more, any of them may judge: `notifies` is whether
    this one tells what it finds firing. The end of what was told any of them tells.
    """

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
        self._unknown_s = -math.inf

    async def watch(self) -> NoReturn:
        """Evaluate every interval; while PostgreSQL is away nothing changes. No error ends it: alerts are the alarm."""
        is_away = False
        while True:
            try:
                await self.evaluate()
                is_away = False
            except StoreUnavailable as error:
                self._metrics.failures.inc()
                if not is_away:
                    log.warning("rules not judged", reason=str(error))
                is_away = True
            except Exception:
                self._metrics.failures.inc()
                log.exception("rules not judged")
            await asyncio.sleep(self._interval_s)

    async def evaluate(self) -> bool:
        """Judge every rule, unless another replica did in this tick; returns whether this one did."""
        lag_s = await self._settled_lag_s()
        async with self._database.transaction() as connection:
            if not await store.try_evaluation_lock(connection):
                return False
            now_us, interval_us = int(self._now() * SECOND), int(self._interval_s * SECOND)
            if not await store.claim_tick(connection, interval_us, now_us):
                return False
            rules = (await newest(connection)).document.rules
            readings = [
                suppress_while_lagging(one, lag_s) for one in await evaluate_rules(Snapshot(connection), rules, now_us)
            ]
            changed = await self._advance(connection, readings, now_us)
            for episode in await store.tell(connection, firing=self._notifies):
                await outbox.put(connection, episode, now_us)
            await store.forget_resolved(connection, now_us - HISTORY_S * SECOND)
        self._metrics.evaluations.inc()
        for episode in changed:
            self._metrics.transitions[episode.state].inc()
            log.info("alert", rule=episode.rule.name, state=episode.state, value=episode.value)
        return True

    async def _settled_lag_s(self) -> float | None:
        """Unknown for a while longer than it is: what waited in journals is not in the stream at once."""
        lag_s, now_s = await self._lag_s(), self._now()
        if lag_s is None:
            self._unknown_s = now_s
        return None if abs(now_s - self._unknown_s) < self._interval_s + _SETTLES_S else lag_s

    async def _advance(
        self, connection: Connection, readings: Sequence[ThresholdState], now_us: int
    ) -> list[AlertInstance]:
        """Returns the episodes that came into another state."""
        before = await store.unresolved(connection)
        after = {
            (key := fingerprint(one.rule)): transition(before.get(key), one, now_us, interval_s=self._interval_s)
            for one in readings
        }
        after |= {key: resolve(episode, now_us) for key, episode in before.items() if key not in after}
        changed = []
        for key, episode in after.items():
            old = before.get(key)
            if episode is not None and episode != old:
                await store.save(connection, episode)
            elif episode is None and old is not None:
                await store.forget(connection, old)
            if episode is not None and (old is None or episode.state != old.state):
                changed.append(episode)
        return changed

"""Alerts in PostgreSQL: the unresolved ones, the history, and which replica evaluates the rules in a tick."""

import zlib
from collections.abc import Callable
from typing import Final

import asyncpg

from common.contracts.thresholds import Alert, Alerts, ThresholdRule
from metrics.alerting.state import AlertInstance, fingerprint
from metrics.ranges import SECOND, as_time, as_us
from metrics.storage.database import Connection, Database

HISTORY_MAX: Final = 200
SKEW_S: Final = 60.0  # a tick further in the future was claimed before the clock was set back
GRACE_S: Final = 5.0  # for busy machines and differing clocks
_ADVISORY_KEY: Final = zlib.crc32(b"sluice-metrics-evaluation")
_COLUMNS: Final = "rule, state, value, pending_at, firing_at, healthy_at, resolved_at, seen_at"


class AlertStore:
    """Reads alerts for the API."""

    def __init__(self, database: Database, *, interval_s: float, now: Callable[[], float]) -> None:
        self._database = database
        self._overdue_s = 3 * interval_s + GRACE_S
        self._now = now

    async def alerts(self) -> Alerts:
        """Return all unresolved alerts and the last resolved ones."""
        async with self._database.snapshot() as connection:
            unresolved = await connection.fetch(
                f"SELECT {_COLUMNS} FROM alert WHERE state <> 'resolved' ORDER BY state, pending_at DESC, id DESC"
            )
            resolved = await connection.fetch(
                f"SELECT {_COLUMNS} FROM alert WHERE state = 'resolved' ORDER BY resolved_at DESC, id DESC LIMIT $1",
                HISTORY_MAX,
            )
            evaluated_at = await connection.fetchval("SELECT at FROM evaluation WHERE at > 'epoch'")
        return Alerts(
            alerts=[_body(_instance(record)) for record in (*unresolved, *resolved)],
            evaluated_at=evaluated_at,
            overdue=evaluated_at is None or self._now() - evaluated_at.timestamp() > self._overdue_s,
        )


async def try_evaluation_lock(connection: Connection) -> bool:
    """Return whether no other replica evaluates the rules until this transaction ends.

    Read the clock for `claim_tick` afterwards: a process may have been paused before.
    """
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _ADVISORY_KEY))


async def claim_tick(connection: Connection, interval_us: int, now_us: int) -> bool:
    """Return whether this transaction is the one that evaluates the rules in the current tick.

    Moments are compared, not numbers of ticks, so that replicas may have different intervals.
    """
    done = await connection.execute(
        "UPDATE evaluation SET at = $1 WHERE at < $2 OR at > $3",
        as_time(now_us),
        as_time(now_us // interval_us * interval_us),
        as_time(now_us + int(SKEW_S * SECOND)),
    )
    return bool(done == "UPDATE 1")


async def unresolved(connection: Connection) -> dict[str, AlertInstance]:
    """Return the unresolved alerts by fingerprint."""
    records = await connection.fetch(f"SELECT fingerprint, {_COLUMNS} FROM alert WHERE state <> 'resolved'")
    return {record["fingerprint"]: _instance(record) for record in records}


async def save(connection: Connection, alert: AlertInstance) -> None:
    """Insert or update the unresolved alert of its rule."""
    values = (
        fingerprint(alert.rule),
        alert.rule.model_dump_json(exclude_none=True),
        alert.state,
        alert.value,
        as_time(alert.pending_us),
        *(
            None if us is None else as_time(us)
            for us in (alert.firing_us, alert.healthy_us, alert.resolved_us, alert.seen_us)
        ),
    )
    done = await connection.execute(
        f"UPDATE alert SET ({_COLUMNS}) = ROW ($2, $3, $4, $5, $6, $7, $8, $9) "
        "WHERE fingerprint = $1 AND state <> 'resolved'",
        *values,
    )
    if done == "UPDATE 0":
        await connection.execute(
            f"INSERT INTO alert (fingerprint, {_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", *values
        )


async def mark_notified(connection: Connection) -> list[AlertInstance]:
    """Return alerts that fire or were resolved since the last notification, and mark them as notified."""
    records = await connection.fetch(
        "UPDATE alert SET told = state WHERE state = 'resolved' AND told = 'firing' "
        f"OR state = 'firing' AND told IS NULL RETURNING {_COLUMNS}"
    )
    return [_instance(record) for record in records]


async def forget(connection: Connection, alert: AlertInstance) -> None:
    """Delete an alert that never fired."""
    await connection.execute("DELETE FROM alert WHERE fingerprint = $1 AND state = 'pending'", fingerprint(alert.rule))


async def forget_resolved(connection: Connection, before_us: int) -> None:
    """Delete alerts that were resolved before."""
    await connection.execute("DELETE FROM alert WHERE state = 'resolved' AND resolved_at < $1", as_time(before_us))


def _instance(record: asyncpg.Record) -> AlertInstance:
    moments = (record[name] for name in ("pending_at", "firing_at", "healthy_at", "resolved_at", "seen_at"))
    pending, *others = (None if at is None else as_us(at) for at in moments)
    assert pending is not None  # a column that is never null
    return AlertInstance(
        ThresholdRule.model_validate_json(record["rule"]), record["state"], record["value"], pending, *others
    )


def _body(alert: AlertInstance) -> Alert:
    return Alert(
        rule=alert.rule,
        state=alert.state,
        value=alert.value,
        fingerprint=fingerprint(alert.rule),
        pending_at=as_time(alert.pending_us),
        firing_at=None if alert.firing_us is None else as_time(alert.firing_us),
        resolved_at=None if alert.resolved_us is None else as_time(alert.resolved_us),
    )

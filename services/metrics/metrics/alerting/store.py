"""Alerts in PostgreSQL: the unresolved ones, the history, and which replica judges the rules this time."""

import zlib
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import asyncpg

from common.contracts.thresholds import Alert, Alerts, ThresholdRule
from metrics.alerting.state import AlertInstance, fingerprint
from metrics.ranges import as_time, as_us
from metrics.storage.database import Connection, Database

HISTORY_MAX: Final = 200
SKEW_S: Final = 60
"""Clocks of replicas differ by less: what was judged later than that was judged by a wrong clock. So is ours where it
differs from PostgreSQL's by more, and we leave the rules to others as long as one judges by that: by windows that are
minutes off each tick would undo what theirs began.
"""
GRACE_S: Final = 5.0  # a busy machine, or a replica's clock
_ADVISORY_KEY: Final = zlib.crc32(b"sluice-metrics-evaluation")
_COLUMNS: Final = "rule, state, value, pending_at, firing_at, healthy_at, resolved_at, seen_at"
_TURN: Final = """
UPDATE evaluation SET at = $1 WHERE (at < $2 OR at > $1::timestamptz + $3::interval) AND (
    $1 BETWEEN clock_timestamp() - $3 AND clock_timestamp() + $3
    OR at NOT BETWEEN clock_timestamp() - $3 - $4::interval AND clock_timestamp() + $3
)
"""


class AlertStore:
    """What has been decided, for reading."""

    def __init__(self, database: Database, *, interval_s: float, now: Callable[[], float]) -> None:
        self._database = database
        self._overdue_s = 3 * interval_s + GRACE_S
        self._now = now

    async def alerts(self) -> Alerts:
        """Everything unresolved, and what was resolved last."""
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
            alerts=[_body(_episode(record)) for record in (*unresolved, *resolved)],
            evaluated_at=evaluated_at,
            overdue=evaluated_at is None or self._now() - evaluated_at.timestamp() > self._overdue_s,
        )


async def try_evaluation_lock(connection: Connection) -> bool:
    """Whether nobody else judges the rules until this transaction ends. Look at the clock for `claim_tick` after that:
    who stood still in between would take what others judged meanwhile for the work of a wrong clock.
    """
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", _ADVISORY_KEY))


async def claim_tick(connection: Connection, interval_us: int, now_us: int) -> bool:
    """Whether this transaction is the one that judges the rules in the tick that it is now; if it fails, another may.

    Moments are compared, not numbers of ticks, so that replicas may have different intervals.
    """
    done = await connection.execute(
        _TURN,
        as_time(now_us),
        as_time(now_us // interval_us * interval_us),
        timedelta(seconds=SKEW_S),
        timedelta(microseconds=interval_us),
    )
    return bool(done == "UPDATE 1")


async def unresolved(connection: Connection) -> dict[str, AlertInstance]:
    """The episode under way of each alert, by its fingerprint."""
    records = await connection.fetch(f"SELECT fingerprint, {_COLUMNS} FROM alert WHERE state <> 'resolved'")
    return {record["fingerprint"]: _episode(record) for record in records}


async def save(connection: Connection, episode: AlertInstance) -> None:
    """Begin or change the unresolved episode of its rule."""
    values = (
        fingerprint(episode.rule),
        episode.rule.model_dump_json(exclude_none=True),
        episode.state,
        episode.value,
        as_time(episode.pending_us),
        *(
            None if us is None else as_time(us)
            for us in (episode.firing_us, episode.healthy_us, episode.resolved_us, episode.seen_us)
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


async def tell(connection: Connection, *, firing: bool) -> list[AlertInstance]:
    """Note as told, and return, what was resolved of what a receiver heard that it fires; with `firing`, what fires."""
    records = await connection.fetch(
        "UPDATE alert SET told = state WHERE state = 'resolved' AND told = 'firing' "
        f"OR $1 AND state = 'firing' AND told IS NULL RETURNING {_COLUMNS}",
        firing,
    )
    return [_episode(record) for record in records]


async def forget(connection: Connection, episode: AlertInstance) -> None:
    """Drop an episode that never fired."""
    await connection.execute(
        "DELETE FROM alert WHERE fingerprint = $1 AND state = 'pending'", fingerprint(episode.rule)
    )


async def forget_resolved(connection: Connection, before_us: int) -> None:
    """Drop what was resolved before."""
    await connection.execute("DELETE FROM alert WHERE state = 'resolved' AND resolved_at < $1", as_time(before_us))


def _episode(record: asyncpg.Record) -> AlertInstance:
    moments = (record[name] for name in ("pending_at", "firing_at", "healthy_at", "resolved_at", "seen_at"))
    pending, *others = (None if at is None else as_us(at) for at in moments)
    assert pending is not None  # a column that is never null
    return AlertInstance(
        ThresholdRule.model_validate_json(record["rule"]), record["state"], record["value"], pending, *others
    )


def _body(episode: AlertInstance) -> Alert:
    return Alert(
        rule=episode.rule,
        state=episode.state,
        value=episode.value,
        fingerprint=fingerprint(episode.rule),
        pending_at=as_time(episode.pending_us),
        firing_at=None if episode.firing_us is None else as_time(episode.firing_us),
        resolved_at=None if episode.resolved_us is None else as_time(episode.resolved_us),
    )

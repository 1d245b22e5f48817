"""Notifications waiting in PostgreSQL until a receiver took them; of one alert, always the oldest first."""

from typing import Final, NamedTuple

from metrics.alerting.state import AlertInstance, fingerprint
from metrics.alerting.webhook_payload import notice
from metrics.ranges import SECOND, as_time, as_us
from metrics.storage.database import Connection, Database

_TAKE: Final = """
UPDATE notification SET attempts = attempts + 1, due_at = $2
WHERE id = (
    SELECT id FROM notification AS one
    WHERE due_at <= $1 AND NOT EXISTS (
        SELECT FROM notification AS older WHERE older.fingerprint = one.fingerprint AND older.id < one.id
    )
    ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
)
RETURNING id, body, attempts, due_at
"""


class PendingNotification(NamedTuple):
    """A notification that this process is to send now, and others from `due_us` on."""

    id: int
    body: str
    attempts: int
    due_us: int


class Outbox:
    """Delivery is at least once: who dies between sending and `sent` has it sent again after the lease."""

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self._database = database
        self._lease_us = int(lease_s * SECOND)

    async def take(self, due_us: int, *, now_us: int) -> PendingNotification | None:
        """One that was due at `due_us`; nobody else gets it until the lease is over, which begins now."""
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(_TAKE, as_time(due_us), as_time(now_us + self._lease_us))
        if record is None:
            return None
        id, body, attempts, due_at = record
        return PendingNotification(id, body, attempts, as_us(due_at))

    async def sent(self, waiting: PendingNotification) -> None:
        """A receiver took it."""
        async with self._database.transaction() as connection:
            await connection.execute("DELETE FROM notification WHERE id = $1", waiting.id)

    async def reschedule(self, waiting: PendingNotification, until_us: int) -> None:
        """Try again then."""
        async with self._database.transaction() as connection:
            await connection.execute("UPDATE notification SET due_at = $2 WHERE id = $1", waiting.id, as_time(until_us))

    async def give_up(self, before_us: int) -> int:
        """Drop what has waited since `before_us`; returns how many that were."""
        async with self._database.transaction() as connection:
            done = await connection.execute("DELETE FROM notification WHERE created_at < $1", as_time(before_us))
        return int(done.removeprefix("DELETE "))

    async def size(self) -> int:
        async with self._database.transaction() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM notification"))


async def put(connection: Connection, episode: AlertInstance, now_us: int) -> None:
    """Have a notification of `episode` sent once the transaction commits."""
    await connection.execute(
        "INSERT INTO notification (fingerprint, created_at, due_at, body) VALUES ($1, $2, $2, $3)",
        fingerprint(episode.rule),
        as_time(now_us),
        notice(episode),
    )

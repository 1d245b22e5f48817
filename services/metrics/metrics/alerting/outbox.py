"""Notifications waiting in PostgreSQL until the receiver accepts them, in order for each alert."""

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
    """A notification leased to this process. Other processes may take it from `due_us` on."""

    id: int
    body: str
    attempts: int
    due_us: int


class Outbox:
    """Delivers at least once: after a crash between sending and `sent` it is sent again when the lease ends."""

    def __init__(self, database: Database, *, lease_s: float) -> None:
        self._database = database
        self._lease_us = int(lease_s * SECOND)

    async def take(self, due_us: int, *, now_us: int) -> PendingNotification | None:
        """Lease one notification that was due at `due_us`, or return None."""
        async with self._database.transaction() as connection:
            record = await connection.fetchrow(_TAKE, as_time(due_us), as_time(now_us + self._lease_us))
        if record is None:
            return None
        id, body, attempts, due_at = record
        return PendingNotification(id, body, attempts, as_us(due_at))

    async def sent(self, waiting: PendingNotification) -> None:
        """Delete a notification that was delivered."""
        async with self._database.transaction() as connection:
            await connection.execute("DELETE FROM notification WHERE id = $1", waiting.id)

    async def reschedule(self, waiting: PendingNotification, until_us: int) -> None:
        """Make a notification due again at `due_us`."""
        async with self._database.transaction() as connection:
            await connection.execute("UPDATE notification SET due_at = $2 WHERE id = $1", waiting.id, as_time(until_us))

    async def give_up(self, before_us: int) -> int:
        """Drop notifications that have waited since before `before_us`. Returns their number."""
        async with self._database.transaction() as connection:
            done = await connection.execute("DELETE FROM notification WHERE created_at < $1", as_time(before_us))
        return int(done.removeprefix("DELETE "))

    async def size(self) -> int:
        async with self._database.transaction() as connection:
            return int(await connection.fetchval("SELECT count(*) FROM notification"))


async def put(connection: Connection, episode: AlertInstance, now_us: int) -> None:
    """Queue a notification of `episode`, to be sent once the transaction commits."""
    await connection.execute(
        "INSERT INTO notification (fingerprint, created_at, due_at, body) VALUES ($1, $2, $2, $3)",
        fingerprint(episode.rule),
        as_time(now_us),
        notice(episode),
    )

"""The prediction stream in Redis: reads it in a consumer group, acknowledges entries and trims them.

An entry leaves the group only by `settle`. If its consumer dies, another one claims it after `claim_idle_s`.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from redis.asyncio import Redis
from redis.client import NEVER_DECODE
from redis.commands.core import AsyncScript
from redis.exceptions import ResponseError

from common.contracts.events import DEAD_LETTERS, EVENT_FIELD, STREAM
from common.stores.redis import REDIS_ERRORS, check_writable
from metrics.errors import StreamUnavailable
from metrics.ingest.parse import DeadLetter, Entry

GROUP: Final = "metrics"
BLOCK_S: Final = 0.5  # how long a read waits for an entry, and so a shutdown for a read
PORTION: Final = 500  # entries per command, because their size is known only after reading
BATCH_BYTES: Final = 16 << 20  # of payloads; storing a batch takes several times as much memory
STALE_CONSUMER_S: Final = 600.0  # a live consumer reads every BLOCK_S

_FIELD: Final = EVENT_FIELD.encode()


@dataclass(frozen=True, slots=True)
class Backlog:
    """The number of entries not yet settled (None if Redis cannot count them) and the age of the oldest event."""

    entries: int | None
    age_s: float


class StreamReader:
    """One consumer of the group. A read returns at most `batch` entries and about BATCH_BYTES.

    Every method raises StreamUnavailable.
    """

    def __init__(
        self,
        redis: Redis,
        consumer: str,
        *,
        batch: int,
        claim_idle_s: float,
        dead_letters_max: int,
        now: Callable[[], float],
    ) -> None:
        self._redis = redis
        self._create_group = _script(redis, "create_group")
        self._dead_letter = _script(redis, "dead_letter")
        self._consumer = consumer
        self._batch = batch
        self.is_behind = False
        """Whether the last batch had the maximum size, so that there is probably more."""
        self._claim_idle_s = claim_idle_s
        self._dead_letters_max = dead_letters_max
        self._now = now
        self._claim_at_s = now()
        self._cursor = "0-0"

    async def next(self) -> list[Entry]:
        """Return entries of a dead consumer, or new ones. Empty if none arrive within BLOCK_S."""
        try:
            async with _translated():
                entries = await self._abandoned() or await self._new()
                self.is_behind = not self._room(entries)
                return entries
        except _NoGroup:
            await self.create_group()
            return []

    async def create_group(self) -> None:
        """Create the group at the start of the stream. Events already stored are recognised by their ids."""
        async with _translated():
            try:
                await self._create_group(keys=[STREAM], args=[GROUP])
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise

    async def settle(self, entries: Sequence[Entry], dead: Sequence[DeadLetter] = ()) -> list[DeadLetter]:
        """Store the dead letters and acknowledge `entries`. Works on a full server, too.

        Returns the letters that were stored. Entries of the others were acknowledged by another consumer first.
        """
        filed: list[int] = []
        letters = [part for one in dead for part in (one.entry.payload or b"", one.reason, one.entry.id)]
        async with _translated():
            if letters:
                filed = await self._dead_letter(
                    keys=[STREAM, DEAD_LETTERS], args=[GROUP, self._dead_letters_max, *letters]
                )
            await self._redis.xack(STREAM, GROUP, *(entry.id for entry in entries))
        return [letter for letter, is_filed in zip(dead, filed, strict=True) if is_filed]

    async def _abandoned(self) -> list[Entry]:
        if self._now() < self._claim_at_s:
            return []
        entries: list[Entry] = []
        while room := self._room(entries):
            reply = await self._raw(
                "XAUTOCLAIM", STREAM, GROUP, self._consumer, int(self._claim_idle_s * 1000), self._cursor,
                "COUNT", room,
            )  # fmt: skip  # it reads as the command does
            self._cursor = reply[0].decode()
            entries += _entries(reply[1])
            if self._cursor == "0-0":
                self._claim_at_s = self._now() + self._claim_idle_s / 2
                break
        return entries

    async def _new(self) -> list[Entry]:
        entries: list[Entry] = []
        while room := self._room(entries):
            waiting = () if entries else ("BLOCK", int(BLOCK_S * 1000))
            reply = await self._raw(
                "XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", room, *waiting, "STREAMS", STREAM, ">"
            )
            found = [entry for parts in (reply or {}).values() for part in parts for entry in _entries(part)]
            entries += found
            if len(found) < room:
                break
        return entries

    def _room(self, entries: Sequence[Entry]) -> int:
        """Return how many more entries fit into this batch."""
        if sum(len(entry.payload or b"") for entry in entries) >= BATCH_BYTES:
            return 0
        return min(PORTION, self._batch - len(entries))

    async def _raw(self, *words: str | int) -> Any:
        """Run a command without decoding its reply: entries of other writers may be invalid UTF-8."""
        options: dict[str, Any] = {NEVER_DECODE: []}
        return await self._redis.execute_command(*words, **options)  # type: ignore[no-untyped-call]  # redis-py


class StreamAdmin:
    """Periodic work for the whole group, done by every replica. All of it is idempotent."""

    def __init__(self, redis: Redis, *, stale_consumer_s: float = STALE_CONSUMER_S) -> None:
        self._redis = redis
        self._backlog = _script(redis, "backlog")
        self._trim = _script(redis, "trim")
        self._stale_ms = int(stale_consumer_s * 1000)

    async def backlog(self) -> Backlog:
        """Return how far ingestion is behind the stream."""
        async with _translated():
            entries, age_ms = await self._backlog(keys=[STREAM], args=[GROUP, EVENT_FIELD])
        return Backlog(None if entries < 0 else entries, max(0, age_ms) / 1000)

    async def check_writable(self) -> None:
        """Raise StreamUnavailable also while Redis is read-only: new events then wait in journals."""
        async with _translated():
            await check_writable(self._redis, STREAM)

    async def tidy(self) -> None:
        """Trim settled entries, and delete idle consumers that have none pending."""
        async with _translated():
            await self._trim(keys=[STREAM], args=[GROUP, self._stale_ms])


class _NoGroup(StreamUnavailable):
    """The stream or the group does not exist."""


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except REDIS_ERRORS as error:
        if isinstance(error, ResponseError) and str(error).startswith("NOGROUP"):
            raise _NoGroup from error
        raise StreamUnavailable(type(error).__name__) from error


def _script(redis: Redis, name: str) -> AsyncScript:
    return redis.register_script((files("metrics.ingest") / "lua" / f"{name}.lua").read_text())


def _entries(pairs: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> list[Entry]:
    return [Entry(id.decode(), fields.get(_FIELD)) for id, fields in pairs]

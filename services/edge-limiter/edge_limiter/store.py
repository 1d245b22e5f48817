"""The exact sliding log in PostgreSQL: one row per key, and one statement that decides a batch of keys.

The row lock serialises writers of a key, and ORDER BY keeps two batches from deadlocking. The clock is the
database's, read once the row is locked (for a new key when its turn comes, behind the locks of those before it), and
never goes back, so a log is in order and what has expired is found by binary search (`width_bucket`). Each
`PostgresLog` is one connection, and the connection is its own circuit breaker: it is dropped when a decision fails or
is late, and comes back only after a probe in the background succeeded, so no client waits for a store that is known
to be away.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

import asyncpg
import structlog
from asyncpg.prepared_stmt import PreparedStatement

from common.postgres import POSTGRES_ERRORS, connect
from edge_limiter.lane import Ask, StoreUnavailable, Verdict

log = structlog.get_logger()

DECIDE: Final = """
INSERT INTO edge.admissions AS a (key, quota, window_us, cost, admitted, at_us, log_us)
SELECT key, quota, window_us, cost, admitted, now_us, array_fill(now_us, ARRAY[admitted * cost])
FROM (SELECT r.*, LEAST(requests, quota / cost) AS admitted, edge.now_us() AS now_us
      FROM (SELECT u.* FROM unnest($1::text::bytea[], $2::text::int[], $3::text::int[], $4::text::int[],
                                   $5::text::bigint[]) AS u(key, requests, cost, quota, window_us)
            CROSS JOIN (SELECT set_config('synchronous_commit', $6, true)) t
            ORDER BY key) r) n
ON CONFLICT (key) DO UPDATE SET (quota, window_us, cost, admitted, at_us, log_us) = (
  SELECT excluded.quota, excluded.window_us, excluded.cost, n.admitted, t.now_us,
         a.log_us[d.dead + 1:] || array_fill(t.now_us, ARRAY[n.admitted * excluded.cost])
  FROM (SELECT GREATEST(a.at_us, edge.now_us()) AS now_us) t
  CROSS JOIN LATERAL (SELECT width_bucket(t.now_us - excluded.window_us, a.log_us) AS dead) d
  CROSS JOIN LATERAL (SELECT GREATEST(0, LEAST(excluded.admitted,
                        (excluded.quota - cardinality(a.log_us) + d.dead) / excluded.cost)) AS admitted) n)
RETURNING key, admitted, GREATEST(0, quota - cardinality(log_us)) AS remaining,
          log_us[GREATEST(1, cardinality(log_us) - quota + cost)] + window_us - at_us AS reset_us
"""

CONNECT_TIMEOUT_S: Final = 2.0
_BACKOFF_S: Final = (0.05, 1.0)
_PUNCTUAL: Final = 0.25  # of its time: a timer later than that says that the loop was busy
_STATEMENT_TIMEOUT_MS: Final = "2000"  # what we no longer wait for must not hold its locks for ever


class PostgresLog:
    """One connection to the log. `run` keeps it open; `decide` must be called by one task at a time."""

    _timer: asyncio.TimerHandle

    def __init__(self, dsn: str, *, durable: bool, on_change: Callable[[bool, str], None]) -> None:
        self._dsn = dsn
        self._commit = "on" if durable else "off"
        self._on_change = on_change
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._statement: PreparedStatement[asyncpg.Record] | None = None
        self._lost = asyncio.Event()
        self._lost.set()
        self._up = asyncio.Event()
        self._failures = 0

    @property
    def is_up(self) -> bool:
        return self._statement is not None

    async def wait_up(self) -> None:
        """Return once the log can be asked."""
        await self._up.wait()

    async def decide(self, asks: Sequence[Ask], timeout_s: float) -> list[Verdict]:
        """One verdict per ask, in order; keys must be distinct. Raises StoreUnavailable, and drops the connection."""
        statement = self._statement
        if statement is None:
            raise StoreUnavailable
        try:
            rows = await self._fetch(statement, asks, timeout_s)
        except POSTGRES_ERRORS as error:
            if self._statement is statement:
                self._drop(type(error).__name__)
            raise StoreUnavailable from error
        self._failures = 0
        found = {row[0]: Verdict(row[1], row[2], row[3] / 1e6) for row in rows}
        return [found[ask.key] for ask in asks]

    async def run(self) -> None:
        """Open the connection, and again whenever it was lost, until cancelled."""
        try:
            while True:
                await self._lost.wait()
                if self._failures:
                    await asyncio.sleep(_jittered_s(self._failures))
                await self._open()
        finally:
            self._terminate()

    async def _open(self) -> None:
        try:
            connection = self._connection = await _dial(self._dsn)
            statement = await self._probe(connection)
        except POSTGRES_ERRORS as error:
            self._drop(type(error).__name__)
            return
        connection.add_termination_listener(self._on_termination)
        self._lost.clear()
        self._statement = statement
        self._up.set()
        self._on_change(True, "")

    async def _probe(self, connection: "asyncpg.Connection[asyncpg.Record]") -> "PreparedStatement[asyncpg.Record]":
        """Decide nothing: finds missing tables, a read-only server and one that hangs."""
        timer = asyncio.get_running_loop().call_later(CONNECT_TIMEOUT_S, self._terminate)
        try:
            statement = await connection.prepare(DECIDE)
            await statement.fetch(*columns([]), self._commit)
            return statement
        finally:
            timer.cancel()

    async def _fetch(
        self, statement: "PreparedStatement[asyncpg.Record]", asks: Sequence[Ask], timeout_s: float
    ) -> list[asyncpg.Record]:
        self._await_answer(timeout_s)
        try:
            return await statement.fetch(*columns(asks), self._commit)
        finally:
            self._timer.cancel()

    def _await_answer(self, patience_s: float) -> None:
        """Drop the connection when `patience_s` have passed, but for the time in which our own loop stood still.

        Terminating is the only way out that cannot hang: cancelling or closing politely talks to the server.
        """
        loop = asyncio.get_running_loop()
        due_s = loop.time() + patience_s

        def give_up() -> None:
            stood_still_s = loop.time() - due_s
            if stood_still_s > _PUNCTUAL * patience_s:  # the answer may be there, and unread
                self._await_answer(stood_still_s)
            else:
                self._drop("late")

        self._timer = loop.call_at(due_s, give_up)

    def _on_termination(self, connection: object) -> None:
        if connection is self._connection:
            self._drop("connection lost")

    def _drop(self, reason: str) -> None:
        self._failures += 1
        self._statement = None
        self._terminate()
        self._up.clear()
        self._lost.set()
        self._on_change(False, reason)

    def _terminate(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def columns(asks: Sequence[Ask]) -> tuple[str, str, str, str, str]:
    """Arrays as PostgreSQL writes them: given lists, asyncpg would look into each element for more lists."""
    return (
        _array([f'"\\\\x{ask.key.hex()}"' for ask in asks]),
        _array([str(ask.requests) for ask in asks]),
        _array([str(ask.cost) for ask in asks]),
        _array([str(ask.limit) for ask in asks]),
        _array([str(ask.window_s * 1_000_000) for ask in asks]),
    )


def _array(elements: Sequence[str]) -> str:
    return f"{{{','.join(elements)}}}"


async def _dial(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    settings = {"application_name": "edge-limiter", "statement_timeout": _STATEMENT_TIMEOUT_MS}
    return await connect(dsn, timeout=CONNECT_TIMEOUT_S, server_settings=settings)


def _jittered_s(failures: int) -> float:
    """At once after the first failure, then doubling to a second; jittered, so that replicas do not come in step."""
    shortest_s, longest_s = _BACKOFF_S
    if failures == 1:
        return 0.0
    return float(min(longest_s, shortest_s * 2.0**failures) * random.uniform(0.5, 1.0))


class StoreState:
    """Whether all connections are up: logged once per transition, counted by whoever reads `is_up`."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._down: set[int] = set(range(connections))
        self._was_up: bool | None = None

    @property
    def is_up(self) -> bool:
        return not self._down

    def listener(self, index: int) -> Callable[[bool, str], None]:
        """What connection `index` reports to."""

        def on_change(up: bool, reason: str) -> None:
            if up:
                self._down.discard(index)
            else:
                self._down.add(index)
            self._log(reason)

        return on_change

    def _log(self, reason: str) -> None:
        if self.is_up and self._was_up is False:
            log.info("limits are exact again")
        elif not self.is_up and self._was_up is not False and reason:
            log.warning("limits are degraded: the store is away or slow", reason=reason)
            self._was_up = False
        if self.is_up:
            self._was_up = True

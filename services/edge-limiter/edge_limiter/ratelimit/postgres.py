"""The exact sliding log in PostgreSQL: one row per key, and one statement that decides a batch of keys.

The row lock serialises writers of a key, and ORDER BY keeps two batches from deadlocking. The clock is the database's.
It is read once the row is locked (for a new key, behind the locks of the keys before it) and never goes back, so a log
is in order and binary search (`width_bucket`) finds what has expired.

The connection is its own circuit breaker. It is dropped on an error, or when decisions have been late several times in
a row. A probe in the background must succeed before it serves again, so no request waits for a store known to be down.
"""

import asyncio
import random
from collections.abc import Sequence
from typing import Final

import asyncpg
import structlog
from asyncpg.prepared_stmt import PreparedStatement

from common.stores.postgres import POSTGRES_ERRORS, connect
from edge_limiter.ratelimit.batcher import Query, QueryResult, StoreUnavailable

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
LATE_IN_A_ROW: Final = 3
"""A statement counts as late each time `timeout_s` passes without its answer; an answer in time resets the count."""
_BACKOFF_S: Final = (0.05, 1.0)


class PostgresLog:
    """One connection to the log. `run` keeps it open; only one task at a time may call `decide`."""

    _timer: asyncio.TimerHandle

    def __init__(self, dsn: str, *, durable: bool, timeout_s: float = 1.0) -> None:
        self._dsn = dsn
        self._commit = "on" if durable else "off"
        self._timeout_s = timeout_s
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._statement: PreparedStatement[asyncpg.Record] | None = None
        self._lost = asyncio.Event()
        self._lost.set()
        self._up = asyncio.Event()
        self._failures = 0
        self._late = 0
        self._is_degraded = False

    @property
    def is_up(self) -> bool:
        return self._statement is not None

    async def wait_up(self) -> None:
        """Return once the log can decide."""
        await self._up.wait()

    async def decide(self, queries: Sequence[Query]) -> list[QueryResult]:
        """Return one result per query, in order; keys must be distinct. Raises StoreUnavailable."""
        statement = self._statement
        if statement is None:
            raise StoreUnavailable
        late = self._late
        self._watch()
        try:
            rows = await statement.fetch(*columns(queries), self._commit)
        except POSTGRES_ERRORS as error:
            if self._statement is statement:
                self._drop(type(error).__name__)
            raise StoreUnavailable from error
        finally:
            self._timer.cancel()
        self._failures = 0
        if self._late == late:
            self._late = 0
        results = {row[0]: QueryResult(row[1], row[2], row[3] / 1e6) for row in rows}
        return [results[query.key] for query in queries]

    async def run(self) -> None:
        """Open the connection, and reopen it whenever it is lost, until cancelled."""
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
            connection = self._connection = await self._dial()
            statement = await self._probe(connection)
        except POSTGRES_ERRORS as error:
            self._drop(type(error).__name__)
            return
        connection.add_termination_listener(self._on_termination)
        self._lost.clear()
        self._statement = statement
        self._up.set()
        if self._is_degraded:
            self._is_degraded = False
            log.info("rate limiter exact again")

    async def _dial(self) -> "asyncpg.Connection[asyncpg.Record]":
        """Connect. The server cancels a statement that we have stopped waiting for, or it would hold its locks."""
        statement_timeout_ms = int(LATE_IN_A_ROW * self._timeout_s * 1_000)
        settings = {"application_name": "edge-limiter", "statement_timeout": str(statement_timeout_ms)}
        return await connect(self._dsn, timeout=CONNECT_TIMEOUT_S, server_settings=settings)

    async def _probe(self, connection: "asyncpg.Connection[asyncpg.Record]") -> "PreparedStatement[asyncpg.Record]":
        """Decide nothing, which finds missing tables, a read-only server and one that hangs."""
        timer = asyncio.get_running_loop().call_later(CONNECT_TIMEOUT_S, self._terminate)
        try:
            statement = await connection.prepare(DECIDE)
            await statement.fetch(*columns([]), self._commit)
            return statement
        finally:
            timer.cancel()

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._on_late)

    def _on_late(self) -> None:
        """Count. However long our own loop stalled, that is one: it reads the answer before the next timer fires."""
        self._late += 1
        if self._late >= LATE_IN_A_ROW:
            self._drop("late")
        else:
            self._watch()

    def _on_termination(self, connection: object) -> None:
        if connection is self._connection:
            self._drop("connection lost")

    def _drop(self, reason: str) -> None:
        self._failures += 1
        self._statement = None
        self._terminate()
        self._up.clear()
        self._lost.set()
        if not self._is_degraded:
            self._is_degraded = True
            log.warning("rate limiter degraded", reason=reason)

    def _terminate(self) -> None:
        """Close without a word to the server: cancelling or closing politely could hang."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def columns(queries: Sequence[Query]) -> tuple[str, str, str, str, str]:
    """Return arrays in PostgreSQL's text form. Given lists, asyncpg would search each element for nested lists."""
    return (
        _array([f'"\\\\x{query.key.hex()}"' for query in queries]),
        _array([str(query.requests) for query in queries]),
        _array([str(query.cost) for query in queries]),
        _array([str(query.limit) for query in queries]),
        _array([str(query.window_s * 1_000_000) for query in queries]),
    )


def _array(elements: Sequence[str]) -> str:
    return f"{{{','.join(elements)}}}"


def _jittered_s(failures: int) -> float:
    """Return no wait after the first failure, then waits that double to a second. Jitter keeps replicas apart."""
    shortest_s, longest_s = _BACKOFF_S
    if failures == 1:
        return 0.0
    return float(min(longest_s, shortest_s * 2.0**failures) * random.uniform(0.5, 1.0))

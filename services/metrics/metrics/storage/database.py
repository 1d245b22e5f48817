"""Connections to PostgreSQL with bounded waits, and driver errors turned into this service's errors.

Every statement runs in a transaction that sets its own parameters, because a pooler such as PgBouncer may run each
transaction in another session.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from common.stores.postgres import POSTGRES_ERRORS, expire_if_read_only
from metrics.errors import RowRefused, StoreTooSlow, StoreUnavailable

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"

IDLE_S: Final = 5.0
"""The longest pause between two statements of a transaction. After it PostgreSQL ends the session: a paused process,
or one whose machine is lost, would otherwise keep locks for which all replicas wait.
"""
READER_IDLE_S: Final = 120.0
"""The same for a snapshot. It is longer because a large response is added up between two reads. Only dropping a
partition waits for readers.
"""
_SCHEMA: Final = "SET LOCAL search_path TO metrics"
# Custom plans check every partition and JIT pays off only for very long queries: either takes longer than most reads.
_QUICK_PLANS: Final = "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL jit = off"


class Database:
    """A pool whose methods raise only StoreUnavailable, StoreTooSlow (a statement timed out) and RowRefused."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        timeout_s: float,
        *,
        idle_s: float = IDLE_S,
        reader_idle_s: float = READER_IDLE_S,
    ) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._writing = f"{_SCHEMA}; {_idle_for(idle_s)}"
        self._reading = f"{_SCHEMA}; {_QUICK_PLANS}; {_idle_for(reader_idle_s)}"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Yield a connection in a transaction that commits unless the block raises."""
        async with self._begun() as connection:
            await connection.execute(self._writing)
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """Yield a read-only connection whose statements all see the same moment."""
        async with self._begun(isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(self._reading)
            yield connection

    @asynccontextmanager
    async def _begun(self, **mode: Any) -> AsyncIterator[Connection]:
        try:
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                with _raise_too_slow(), _close_when_broken(connection):
                    async with connection.transaction(**mode):
                        yield connection
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise RowRefused(type(error).__name__) from error
        except POSTGRES_ERRORS as error:
            await expire_if_read_only(error, self._pool)
            raise StoreUnavailable(type(error).__name__) from error


def _idle_for(limit_s: float) -> str:
    return f"SET LOCAL idle_in_transaction_session_timeout = {round(limit_s * 1000)}"


@contextmanager
def _raise_too_slow() -> Iterator[None]:
    """Raise StoreTooSlow for a statement that timed out, unlike a wait for a connection."""
    try:
        yield
    except (TimeoutError, asyncpg.QueryCanceledError) as error:
        raise StoreTooSlow(type(error).__name__) from error


@contextmanager
def _close_when_broken(connection: Connection) -> Iterator[None]:
    """Close a connection that timed out or broke, because returning it to the pool would wait for the server."""
    try:
        yield
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError):
        connection.terminate()
        raise

"""The way to PostgreSQL: bounded waits for a connection, and driver errors as this service's own; it knows no table.

Every statement runs in a transaction that names the schema itself: a pooler such as PgBouncer hands each transaction
to another session, and forgets what the client asked of its own.
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
"""A process may stand still for so long between two statements of a transaction. Then PostgreSQL ends its session: it
would keep its locks as long as it is paused, and for hours where its machine is gone, and all replicas wait for them.
"""
READER_IDLE_S: Final = 120.0
"""The same of a snapshot: between two reads a long answer is added up, beside others. No request is given longer, and
only who drops a partition waits for a reader.
"""
_SCHEMA: Final = "SET LOCAL search_path TO metrics"
# A plan for the values at hand looks at every partition first, and compiling one pays for hours of work only: either
# takes longer than most of the reads.
_QUICK_PLANS: Final = "SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL jit = off"


class Database:
    """A pool whose callers see StoreUnavailable (StoreTooSlow where a statement took too long) and RowRefused only."""

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
        """A connection inside a transaction that commits unless the block raises."""
        async with self._begun() as connection:
            await connection.execute(self._writing)
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A read-only connection whose statements all see the same moment."""
        async with self._begun(isolation="repeatable_read", readonly=True) as connection:
            await connection.execute(self._reading)
            yield connection

    @asynccontextmanager
    async def _begun(self, **mode: Any) -> AsyncIterator[Connection]:
        try:
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                with _told_when_slow(), _ended_when_broken(connection):
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
def _told_when_slow() -> Iterator[None]:
    """Tell a statement that was cut off from a connection that was not to be had."""
    try:
        yield
    except (TimeoutError, asyncpg.QueryCanceledError) as error:
        raise StoreTooSlow(type(error).__name__) from error


@contextmanager
def _ended_when_broken(connection: Connection) -> Iterator[None]:
    """Close a connection that timed out or broke: returning it to the pool would first wait for the server."""
    try:
        yield
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError):
        connection.terminate()
        raise

"""The way to PostgreSQL: bounded waits for a connection, and driver errors as this service's own; it knows no table."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from common.postgres import POSTGRES_ERRORS
from metrics.errors import RowRefused, StoreUnavailable

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"


class Database:
    """A pool whose callers see StoreUnavailable and RowRefused only."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection outside any transaction."""
        try:
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                with _ended_when_broken(connection):
                    yield connection
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise RowRefused(type(error).__name__) from error
        except (*POSTGRES_ERRORS, asyncpg.InternalClientError) as error:
            raise StoreUnavailable(type(error).__name__) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A connection inside a transaction that commits unless the block raises."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A read-only connection whose statements all see the same moment."""
        async with (
            self.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            # A plan for the values at hand looks at every partition first, and compiling one pays for hours of work
            # only: either takes longer than most of the reads.
            await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL jit = off")
            yield connection


@contextmanager
def _ended_when_broken(connection: Connection) -> Iterator[None]:
    """Close a connection that timed out or broke: returning it to the pool would first wait for the server."""
    try:
        yield
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.PostgresConnectionError):
        connection.terminate()
        raise

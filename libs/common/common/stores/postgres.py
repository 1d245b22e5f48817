"""PostgreSQL: connections to a server that accepts writes, and connection pools with time limits."""

import asyncio
from typing import Any, Final, cast

import asyncpg

POSTGRES_ERRORS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""Errors of a PostgreSQL server that is down, slow or restarting. TimeoutError is an OSError.

A pool may raise InternalClientError when its connection dies between a statement and its return to the pool.
"""


async def connect(dsn: str, *, timeout: float, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    """Connect to the first host of `dsn` that accepts writes, within `timeout` seconds.

    `target_session_attrs` in the URL replaces the check. By default the server itself is queried, because asyncpg
    relies on parameters that PgBouncer reports from its cache.
    """
    checks = "target_session_attrs=" not in dsn
    if checks and "," in dsn.rpartition("@")[2].partition("/")[0]:
        options["target_session_attrs"] = "read-write"
    async with asyncio.timeout(timeout):
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(dsn, timeout=timeout, **options)
        try:
            if checks and await connection.fetchval("SHOW transaction_read_only") == "on":
                raise asyncpg.ReadOnlySQLTransactionError("the server does not accept writes")
        except BaseException:
            connection.terminate()
            raise
    return connection


def create_pool(
    dsn: str, *, schema: str, application: str, size: int = 10, timeout_s: float = 5.0
) -> "asyncpg.Pool[asyncpg.Record]":
    """Return a pool of at most `size` connections that opens when it is awaited or entered.

    Statements search `schema` first and are cancelled after `timeout_s`.
    """
    return asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        connect=cast(Any, connect),  # its type lists every option
        timeout=timeout_s,
        command_timeout=timeout_s,
        server_settings={"search_path": schema, "application_name": application},
    )


async def expire_if_read_only(error: Exception, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Replace all connections of `pool` if `error` shows that its server is no longer the primary."""
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        await pool.expire_connections()

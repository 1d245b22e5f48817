"""PostgreSQL: connections to a server that takes writes, and pools of them with time limits.

Migrations are `common.stores.migrations`, loaded only by those who migrate.
"""

import asyncio
from contextlib import suppress
from typing import Any, Final, cast
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg

from common.stores.names import look_up

POSTGRES_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What a PostgreSQL that is down, slow or restarting raises; TimeoutError is an OSError.

InternalClientError: a pool may raise it when its connection dies between a statement and its return to the pool.
"""

SILENT_S: Final = 2.0
"""A host with others after it has at most so long to answer."""
_ELSEWHERE: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.TargetServerAttributeNotMatched,
)
"""Another host of the URL may do better."""


async def connect(dsn: str, *, timeout: float, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    """Dial the hosts of `dsn` in turn until one takes writes; `timeout` seconds are for all of them together.

    Given them all, asyncpg would wait for the first until its time is over. Whether the server takes writes it is
    asked, unless the URL has `target_session_attrs`: what asyncpg goes by then PgBouncer answers from memory.
    """
    loop = asyncio.get_running_loop()
    due_s = loop.time() + timeout
    hosts = _each_host(dsn)
    for place, url in enumerate(hosts[:-1]):
        share_s = (due_s - loop.time()) / (len(hosts) - place)
        with suppress(*_ELSEWHERE):
            return await _dial(url, min(share_s, SILENT_S), options)
    return await _dial(hosts[-1], due_s - loop.time(), options)


def create_pool(
    dsn: str, *, schema: str, application: str, size: int = 10, timeout_s: float = 5.0
) -> "asyncpg.Pool[asyncpg.Record]":
    """A pool that opens lazily: await it (or `async with`) to connect; `size` bounds its connections.

    Statements see `schema` first on their search path, and are cut off after `timeout_s`.
    """
    return asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=size,
        connect=cast(Any, connect),  # its type would name each of the options
        timeout=timeout_s,
        command_timeout=timeout_s,
        server_settings={"search_path": schema, "application_name": application},
    )


async def expire_if_read_only(error: Exception, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Have the pool dial anew when `error` says that its server, though alive, takes no writes any more."""
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        await pool.expire_connections()


def migrate(dsn: str, *, package: str, schema: str) -> None:
    """Bring `schema` to the newest revision in `<package>/migrations`. Safe to call from many replicas at once.

    Raises StartError when the database cannot be reached or refuses.
    """
    from common.stores import migrations  # SQLAlchemy and Alembic cost 0.3 s and 30 MB, which no running service needs

    migrations.migrate(dsn, package=package, schema=schema)


def run_env() -> None:
    """What each `migrations/env.py` calls: run the revisions on the connection that `migrate` opened."""
    from common.stores import migrations

    migrations.run_env()


async def _dial(url: str, timeout_s: float, options: dict[str, Any]) -> "asyncpg.Connection[asyncpg.Record]":
    async with asyncio.timeout(timeout_s):
        await look_up(_name(url))
        connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(url, timeout=timeout_s, **options)
        try:
            if "target_session_attrs=" not in url and await connection.fetchval("SHOW transaction_read_only") == "on":
                raise asyncpg.ReadOnlySQLTransactionError("the server takes no writes")
        except BaseException:
            connection.terminate()
            raise
    return connection


def _name(url: str) -> str:
    """Of its only host; none where that is a folder with a socket."""
    host = unquote(urlsplit(url).hostname or "")
    return "" if "/" in host else host


def _each_host(dsn: str) -> list[str]:
    """`dsn` once for each of its hosts."""
    parts = urlsplit(dsn)
    user, at, hosts = parts.netloc.rpartition("@")
    if "," not in hosts:
        return [dsn]
    return [urlunsplit(parts._replace(netloc=f"{user}{at}{host}")) for host in hosts.split(",")]

"""PostgreSQL: pools with time limits; migrations are `common.migrations`, loaded only by those who migrate."""

import asyncpg

POSTGRES_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What a PostgreSQL that is down, slow or restarting raises; TimeoutError is an OSError.

InternalClientError: a pool may raise it when its connection dies between a statement and its return to the pool.
"""


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
        timeout=timeout_s,
        command_timeout=timeout_s,
        server_settings={"search_path": schema, "application_name": application},
    )


def migrate(dsn: str, *, package: str, schema: str) -> None:
    """Bring `schema` to the newest revision in `<package>/migrations`. Safe to call from many replicas at once.

    Raises StartError when the database cannot be reached or refuses.
    """
    from common import migrations  # SQLAlchemy and Alembic cost 0.3 s and 30 MB, which no running service needs

    migrations.migrate(dsn, package=package, schema=schema)


def run_env() -> None:
    """What each `migrations/env.py` calls: run the revisions on the connection that `migrate` opened."""
    from common import migrations

    migrations.run_env()

"""Migrations of one service's own schema, under an advisory lock; all revisions of a run succeed or none.

Revisions are numbered (`0001`), so that a release knows a schema that a newer one has expanded, and leaves it alone.
"""

import asyncio
import zlib
from importlib.resources import files
from typing import Final

import asyncpg
import sqlalchemy
import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from common.runtime.settings import StartError
from common.stores.postgres import POSTGRES_ERRORS, connect

log = structlog.get_logger()

CONNECT_TIMEOUT_S: Final = 10.0


def migrate(dsn: str, *, package: str, schema: str, revision: str = "head") -> None:
    """See `common.stores.postgres.migrate`; an older `revision` is for tests of the ones after it."""
    asyncio.run(_migrate(dsn, package, schema, revision))


async def _migrate(dsn: str, package: str, schema: str, revision: str) -> None:
    opened = await _connect(dsn)

    async def given() -> "asyncpg.Connection[asyncpg.Record]":
        return opened

    engine = create_async_engine("postgresql+asyncpg://", async_creator=given, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, package, schema, revision)
    finally:
        await engine.dispose()


async def _connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Not by SQLAlchemy, which refuses `?sslmode=` and the other options of a PostgreSQL URL."""
    try:
        return await connect(dsn, timeout=CONNECT_TIMEOUT_S)
    except POSTGRES_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StartError(f"DATABASE_URL: PostgreSQL cannot be used: {reason}") from error


def _upgrade(connection: sqlalchemy.Connection, package: str, schema: str, revision: str) -> None:
    lock = zlib.crc32(f"sluice-migrate-{schema}".encode())
    connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock})
    if not connection.scalar(sqlalchemy.text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": schema}):
        connection.execute(sqlalchemy.text(f'CREATE SCHEMA "{schema}"'))  # needs a right that its owner may lack
    connection.execute(sqlalchemy.text(f'SET LOCAL search_path TO "{schema}"'))
    config = Config()
    config.set_main_option("script_location", str(files(package) / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["schema"] = schema
    if not _is_newer(connection, config, schema):
        command.upgrade(config, revision)


def _is_newer(connection: sqlalchemy.Connection, config: Config, schema: str) -> bool:
    """Whether a later release has migrated it; StartError when its version is none that any release could give."""
    known = ScriptDirectory.from_config(config)
    newest = known.get_current_head() or ""
    found = MigrationContext.configure(connection, opts={"version_table_schema": schema}).get_current_heads()
    unknown = [version for version in found if version not in {one.revision for one in known.walk_revisions()}]
    if not unknown:
        return False
    if len(found) > 1 or not (unknown[0].isdecimal() and len(unknown[0]) == len(newest) and unknown[0] > newest):
        raise StartError(f"{schema}.alembic_version holds {', '.join(found)}, which is no revision of this service")
    log.warning("schema is newer than this release; nothing to migrate", schema=schema, found=found[0], newest=newest)
    return True


def run_env() -> None:
    """See `common.stores.postgres.run_env`."""
    from alembic import context  # bound to the running migration only while there is one

    context.configure(
        connection=context.config.attributes["connection"],
        version_table_schema=context.config.attributes["schema"],
    )
    context.run_migrations()  # inside `migrate`'s transaction, which holds the advisory lock

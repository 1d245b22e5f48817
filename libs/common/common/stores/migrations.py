"""Migrations of a service's schema under an advisory lock. All revisions of a run succeed, or none.

Revisions are numbered (`0001`), so that a release can recognise the schema of a newer one and leave it unchanged.
Import this module only to migrate: SQLAlchemy and Alembic cost 0.3 s and 30 MB.
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
    """Upgrade `schema` to `revision` in `<package>/migrations`. Replicas may call it at the same time.

    Raises StartError when the database is unreachable or refuses.
    """
    asyncio.run(_migrate(dsn, package, schema, revision))


async def _migrate(dsn: str, package: str, schema: str, revision: str) -> None:
    opened = await _connect(dsn)

    async def get_connection() -> "asyncpg.Connection[asyncpg.Record]":
        return opened

    engine = create_async_engine("postgresql+asyncpg://", async_creator=get_connection, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_upgrade, package, schema, revision)
    finally:
        await engine.dispose()


async def _connect(dsn: str) -> "asyncpg.Connection[asyncpg.Record]":
    """Connect without SQLAlchemy, which rejects `?sslmode=` and other options of PostgreSQL URLs."""
    try:
        return await connect(dsn, timeout=CONNECT_TIMEOUT_S)
    except POSTGRES_ERRORS as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise StartError(f"DATABASE_URL: PostgreSQL cannot be used: {reason}") from error


def _upgrade(connection: sqlalchemy.Connection, package: str, schema: str, revision: str) -> None:
    lock = zlib.crc32(f"sluice-migrate-{schema}".encode())
    connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:key)"), {"key": lock})
    if not connection.scalar(sqlalchemy.text("SELECT to_regnamespace(:name) IS NOT NULL"), {"name": schema}):
        connection.execute(sqlalchemy.text(f'CREATE SCHEMA "{schema}"'))  # needs a privilege that its owner may lack
    connection.execute(sqlalchemy.text(f'SET LOCAL search_path TO "{schema}"'))
    config = Config()
    config.set_main_option("script_location", str(files(package) / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    config.attributes["schema"] = schema
    if not _is_newer(connection, config, schema):
        command.upgrade(config, revision)


def _is_newer(connection: sqlalchemy.Connection, config: Config, schema: str) -> bool:
    """Whether a later release migrated the schema. Raises StartError for a version that no release has."""
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
    """Run the revisions on the connection that `migrate` opened. Every `migrations/env.py` calls this."""
    from alembic import context  # exists only during a migration

    context.configure(
        connection=context.config.attributes["connection"],
        version_table_schema=context.config.attributes["schema"],
    )
    context.run_migrations()  # in the transaction of `migrate`, which holds the advisory lock

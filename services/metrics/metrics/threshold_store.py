"""Versions of the thresholds document in PostgreSQL; the newest is in force, none is ever changed."""

from typing import NamedTuple

from metrics.database import Connection, Database
from metrics.errors import VersionConflict
from metrics.thresholds import DEFAULT, Thresholds


class Versioned(NamedTuple):
    """Version 0 is the default that nobody wrote."""

    version: int
    document: Thresholds


async def newest(connection: Connection) -> Versioned:
    """The document in force."""
    row = await connection.fetchrow("SELECT version, document FROM threshold_document ORDER BY version DESC LIMIT 1")
    return Versioned(row[0], Thresholds.model_validate_json(row[1])) if row else Versioned(0, DEFAULT)


class ThresholdStore:
    """Writers take turns, so that two who read the same version can't both replace it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self) -> Versioned:
        async with self._database.transaction() as connection:
            return await newest(connection)

    async def replace(self, document: Thresholds, *, expected: frozenset[int] | None) -> Versioned:
        """Make `document` the newest version. Raises VersionConflict unless the newest is in `expected` (None: any)."""
        async with self._database.transaction() as connection:
            await connection.execute("LOCK TABLE threshold_document IN SHARE ROW EXCLUSIVE MODE")
            version = (await newest(connection)).version
            if expected is not None and version not in expected:
                raise VersionConflict
            await connection.execute(
                "INSERT INTO threshold_document (version, document) VALUES ($1, $2)",
                version + 1,
                document.model_dump_json(exclude_none=True),
            )
        return Versioned(version + 1, document)

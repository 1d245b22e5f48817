"""Versions of the thresholds document in PostgreSQL. The newest applies; none is ever changed."""

from typing import Final, NamedTuple

from metrics.alerting.rules import DEFAULT, ThresholdHistory, Thresholds, ThresholdVersion
from metrics.errors import VersionConflict
from metrics.storage.database import Connection, Database

_HISTORY: Final = """
SELECT version, created_at, document FROM threshold_document
WHERE $1::bigint IS NULL OR version < $1 ORDER BY version DESC LIMIT $2
"""


class Versioned(NamedTuple):
    """A version of the document. Version 0 is the built-in default."""

    version: int
    document: Thresholds

    @property
    def etag(self) -> str:
        return _etag(self.version)


async def newest(connection: Connection) -> Versioned:
    """Return the version that applies."""
    row = await connection.fetchrow("SELECT version, document FROM threshold_document ORDER BY version DESC LIMIT 1")
    return Versioned(row[0], Thresholds.model_validate_json(row[1])) if row else Versioned(0, DEFAULT)


def _etag(version: int) -> str:
    return f'"{version}"'


class ThresholdStore:
    """Reads and replaces the document. A lock keeps two writers from replacing the same version."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self) -> Versioned:
        async with self._database.transaction() as connection:
            return await newest(connection)

    async def history(self, *, limit: int, before: int | None) -> ThresholdHistory:
        """Return the newest `limit` versions older than `before`, or the newest of all."""
        async with self._database.transaction() as connection:
            records = await connection.fetch(_HISTORY, before, limit)
        versions = [
            ThresholdVersion(etag=_etag(version), at=at, document=Thresholds.model_validate_json(document))
            for version, at, document in records
        ]
        is_more = len(records) == limit and records[-1][0] > 1
        return ThresholdHistory(versions=versions, cursor=records[-1][0] if is_more else None)

    async def replace(self, document: Thresholds, *, expected: frozenset[int] | None) -> Versioned:
        """Make `document` the newest version. Raises VersionConflict unless the newest is in `expected` (None: any)."""
        async with self._database.transaction() as connection:
            await connection.execute("LOCK TABLE threshold_document IN SHARE ROW EXCLUSIVE MODE")
            version = (await newest(connection)).version
            if expected is not None and version not in expected:
                raise VersionConflict
            await connection.execute(
                # now() is when the transaction began: of one that waited for the lock, before the version in force
                "INSERT INTO threshold_document (version, created_at, document) VALUES ($1, clock_timestamp(), $2)",
                version + 1,
                document.model_dump_json(exclude_none=True),
            )
        return Versioned(version + 1, document)

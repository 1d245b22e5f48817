"""Past reports in PostgreSQL: stored in the background, read in pages, deleted when old.

Other versions write to the same table. Their reports are listed, and returned if this version can parse them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, NoReturn

import asyncpg
import structlog
from pydantic import ValidationError

from analyst.report.models import Report, ReportSummary
from common.runtime.readiness import State
from common.runtime.tasks import supervised
from common.stores.postgres import POSTGRES_ERRORS, create_pool, expire_if_read_only

log = structlog.get_logger()

SCHEMA: Final = "analyst"
MAX_WAITING: Final = 256
CONNECTIONS: Final = 2
PURGE_S: Final = 3600.0

_KEEP: Final = "INSERT INTO analyst.report (id, generated_at, document) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
_GET: Final = "SELECT document FROM analyst.report WHERE id = $1"
_PURGE: Final = "DELETE FROM analyst.report WHERE generated_at < now() - $1::interval"
_PAGE: Final = """
    SELECT id::text AS report_id, generated_at, document #>> '{windows,name}' AS "window",
           coalesce(document->>'status', 'unknown') AS status, coalesce(document->>'source', 'unknown') AS source,
           document->>'fallback_reason' AS fallback_reason, document->>'model' AS model,
           coalesce(document->>'summary', '') AS summary
    FROM analyst.report WHERE $1::uuid IS NULL OR id < $1 ORDER BY id DESC LIMIT $2
"""


class ReportStoreUnavailable(Exception):
    """The database is unavailable."""


class ReportUnreadable(Exception):
    """Another version stored the report in a format that this one cannot parse."""


@dataclass(frozen=True, slots=True)
class ReportStoreLimits:
    """Retention, and the timeout of a statement."""

    keep_days: int
    timeout_s: float


class ReportStore:
    """Stores reports in the background, one by one. Calls `on_lost` for each that cannot be stored."""

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", limits: ReportStoreLimits, on_lost: Callable[[], None]
    ) -> None:
        self._pool = pool
        self._limits = limits
        self._on_lost = on_lost
        self._waiting: asyncio.Queue[Report] = asyncio.Queue(MAX_WAITING)
        self._reachable = True

    def keep(self, report: Report) -> None:
        """Queue a report for storage. Never waits or raises."""
        try:
            self._waiting.put_nowait(report)
        except asyncio.QueueFull:
            self._on_lost()

    async def page(self, before: str | None, limit: int) -> list[ReportSummary]:
        """Return the newest reports older than `before`, newest first. Raises ReportStoreUnavailable."""
        with _translated():
            rows = await self._pool.fetch(_PAGE, before, limit, timeout=self._limits.timeout_s)
        return [ReportSummary(**row) for row in rows]

    async def get(self, report_id: str) -> Report | None:
        """Return a report, or None. Raises ReportStoreUnavailable and ReportUnreadable."""
        with _translated():
            document = await self._pool.fetchval(_GET, report_id, timeout=self._limits.timeout_s)
        try:
            return None if document is None else Report.model_validate_json(document)
        except ValidationError as error:
            raise ReportUnreadable from error

    async def state(self) -> State:
        try:
            await self._pool.fetchval("SELECT 1 FROM analyst.report LIMIT 1")
        except POSTGRES_ERRORS:
            return "degraded"
        return "ok"

    async def store_all(self) -> NoReturn:
        while True:
            report = await self._waiting.get()
            try:
                await self._pool.execute(_KEEP, report.report_id, report.generated_at, report.model_dump_json())
            except POSTGRES_ERRORS as error:
                self._lost(error)
                await expire_if_read_only(error, self._pool)
            else:
                self._reachable = True
            finally:
                self._waiting.task_done()

    async def purge_often(self) -> NoReturn:
        """Delete old reports now and every hour. Safe to run in several replicas."""
        while True:
            try:
                await self._pool.execute(_PURGE, timedelta(days=self._limits.keep_days))
            except POSTGRES_ERRORS as error:
                log.warning("old reports not deleted", error=type(error).__name__)
                await expire_if_read_only(error, self._pool)
            await asyncio.sleep(PURGE_S)

    async def drain(self) -> None:
        """Wait until all queued reports are stored or lost, for at most one statement's timeout."""
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                await self._waiting.join()
        except TimeoutError:
            log.warning("reports not stored at the end", reports=self._waiting.qsize())

    def _lost(self, error: BaseException) -> None:
        self._on_lost()
        if self._reachable:
            self._reachable = False
            log.warning("reports are not stored", error=type(error).__name__)


@asynccontextmanager
async def open_report_store(
    dsn: str, limits: ReportStoreLimits, on_lost: Callable[[], None], fatal: asyncio.Event
) -> AsyncIterator[ReportStore]:
    """Yield the report store with its background tasks. It also opens while the database is down."""
    pool = create_pool(dsn, schema=SCHEMA, application="sluice-analyst", size=CONNECTIONS, timeout_s=limits.timeout_s)
    await pool  # opens no connection yet
    archive = ReportStore(pool, limits, on_lost)
    try:
        async with (
            supervised(archive.store_all(), "report archive", fatal),
            supervised(archive.purge_often(), "report retention", fatal),
        ):
            yield archive
            await archive.drain()
    finally:
        pool.terminate()  # closing politely can wait for a server that hangs


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except POSTGRES_ERRORS as error:
        raise ReportStoreUnavailable(type(error).__name__) from error

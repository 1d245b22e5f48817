"""One SQLite file of the journal, locked by the process that has it open.

`synchronous=OFF` leaves writes to the page cache: they survive the death of the process, but not of the host. The
rollback journal is kept between transactions, and its blocks allow to delete rows while the disk is full.
"""

import os
import sqlite3
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

RECORD_OVERHEAD_BYTES: Final = 12  # of a row, beside its payload

_RESERVED_PAGES: Final = 64  # in the rollback journal; a page of deleted rows changes fewer
_DELETED_ROWS: Final = 200
_DELETED_BYTES: Final = 100_000
_FREE_PAGES: Final = 4096  # kept for reuse; others are returned to the disk
_MARK_S: Final = 0.1  # what is shipped within it is deleted together

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)"
_INSERT: Final = "INSERT INTO events VALUES (?, ?)"


class Locked(Exception):
    """Another process has the file open."""


class JournalFile:
    """Payloads in the order of their ids, and in memory, which of them are shipped and since when."""

    def __init__(self, path: Path) -> None:
        """Open and lock an existing file. Raises Locked, OSError, or sqlite3.Error if it is damaged."""
        self.path = path
        self._inode = _inode(path)
        self._db = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=0, isolation_level=None)
        try:
            for pragma in ("auto_vacuum=INCREMENTAL", "locking_mode=EXCLUSIVE", "synchronous=OFF"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute("BEGIN EXCLUSIVE")  # kept by the locking mode
            self._db.execute(_SCHEMA)
            self._db.execute("COMMIT")
            self._db.execute("PRAGMA journal_mode=PERSIST")
            last_id, payload_bytes, rows = self._totals()
            _inode(path)  # raises if another process deleted it meanwhile
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise Locked from error
            raise
        self._last_id: int = last_id
        self.rows: int = rows
        self.size_bytes: int = payload_bytes + rows * RECORD_OVERHEAD_BYTES
        self.shipped_bytes = 0
        self._shipped_id: int = 0
        self._deleted_id = 0
        self._marks: deque[tuple[float, int]] = deque()

    @classmethod
    def create(cls, path: Path) -> "JournalFile":
        """Create, open and lock a file, and reserve the blocks of its rollback journal."""
        path.touch(mode=0o600, exist_ok=False)
        file = cls(path)
        try:
            file.append([b"\0" * 4000] * _RESERVED_PAGES)
            file.mark_shipped(_RESERVED_PAGES, file.size_bytes, 0.0)
            file._delete(_RESERVED_PAGES)
        except BaseException:
            file.close()
            raise
        return file

    @property
    def is_in_place(self) -> bool:
        """False when the file or a folder above it was moved, removed or mounted over."""
        try:
            return _inode(self.path) == self._inode
        except OSError:
            return False

    @property
    def is_damaged(self) -> bool:
        """Whether rows could not be counted when it was opened, so that `rows` says nothing."""
        return self._last_id == sys.maxsize

    @property
    def is_shipped(self) -> bool:
        return self._shipped_id >= self._last_id

    def was_shipped(self, before_s: float) -> bool:
        """Whether everything was shipped before this time, or there is nothing."""
        if self.is_damaged:
            return False
        return not self.rows or (self.is_shipped and self._marks[-1][0] + _MARK_S < before_s)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Store all of `payloads` in one transaction, or none and raise sqlite3.Error."""
        rows = list(enumerate(payloads, self._last_id + 1))
        if len(rows) == 1:
            self._db.execute(_INSERT, rows[0])
        else:
            self._insert(rows)
        self._last_id += len(rows)
        self.rows += len(rows)
        self.size_bytes += sum(map(len, payloads)) + len(rows) * RECORD_OVERHEAD_BYTES

    def read(self, max_bytes: int) -> list[tuple[int, bytes]]:
        """Return ids and payloads that are not shipped: at most `max_bytes`, or one. Raises sqlite3.Error."""
        found: list[tuple[int, bytes]] = []
        cursor = self._db.execute("SELECT id, payload FROM events WHERE id > ? ORDER BY id", (self._shipped_id,))
        try:
            for row in cursor:
                max_bytes -= len(row[1])
                if found and max_bytes < 0:
                    break
                found.append(row)
        except sqlite3.DatabaseError:
            if not found:
                raise
        finally:
            cursor.close()
        return found

    def mark_shipped(self, up_to_id: int, size_bytes: int, now_s: float) -> None:
        """Everything up to this id, which is `size_bytes` more than before, was acknowledged now."""
        self._shipped_id = max(self._shipped_id, up_to_id)
        self.shipped_bytes += size_bytes
        if self._marks and now_s < self._marks[-1][0] + _MARK_S:
            now_s = self._marks.pop()[0]
        self._marks.append((now_s, up_to_id))

    def rewind(self) -> None:
        """Nothing is shipped any more."""
        self._shipped_id = self.shipped_bytes = 0
        self._marks.clear()

    def delete_shipped(self, before_s: float) -> bool:
        """Delete a page of the oldest rows that were shipped before this time; False if there are none."""
        while self._marks and self._marks[0][1] <= self._deleted_id:
            self._marks.popleft()
        if not self._marks or self._marks[0][0] + _MARK_S >= before_s:
            return False
        [oldest] = self._db.execute("SELECT min(id) FROM events").fetchone()
        count = min(_DELETED_ROWS, max(1, _DELETED_BYTES * self.rows // self.size_bytes))
        self._delete(min(self._marks[0][1], oldest + count - 1))
        return True

    def vacuum(self) -> None:
        """Return free pages to the disk, beyond those kept for reuse."""
        [free] = self._db.execute("PRAGMA freelist_count").fetchone()
        if free > _FREE_PAGES:
            self._db.executescript(f"PRAGMA incremental_vacuum({_RESERVED_PAGES})")  # execute() frees one page only

    def close(self) -> None:
        """Unlock the file, and remove it if it is empty."""
        if not self.rows and not self.is_damaged:
            self.remove()
        else:
            self._db.close()

    def remove(self) -> None:
        """Delete the file while it is locked, so that no other process adopts it."""
        with suppress(OSError):
            if self.is_in_place:
                self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)  # last: without it no process would find the other one
        self._db.close()

    def set_aside(self) -> None:
        """Close and rename a damaged file."""
        set_aside(self.path)
        self._db.close()

    def _totals(self) -> tuple[int, int, int]:
        """Return the last id, the length of all payloads and their number."""
        totals = "SELECT ifnull(max(id), 0), ifnull(sum(length(payload)), 0), count(*) FROM events"
        try:
            found: tuple[int, int, int] = self._db.execute(totals).fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # damaged: `read` returns what comes before
            return sys.maxsize, self.path.stat().st_size, 1
        return found

    def _insert(self, rows: list[tuple[int, bytes]]) -> None:
        self._db.execute("BEGIN")
        try:
            self._db.executemany(_INSERT, rows)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def _delete(self, up_to_id: int) -> None:
        total = "SELECT ifnull(sum(length(payload)), 0), count(*) FROM events WHERE id <= ?"
        payload_bytes, rows = self._db.execute(total, (up_to_id,)).fetchone()
        self._db.execute("DELETE FROM events WHERE id <= ?", (up_to_id,))
        self._deleted_id = up_to_id
        self.rows -= rows
        size_bytes = payload_bytes + rows * RECORD_OVERHEAD_BYTES
        self.size_bytes -= size_bytes
        self.shipped_bytes -= size_bytes


def set_aside(path: Path) -> None:
    """Rename a damaged file to NAME.damaged, for `sqlite3 NAME.damaged .recover`."""
    with suppress(OSError):
        path.rename(path.with_suffix(".damaged"))


def _inode(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino

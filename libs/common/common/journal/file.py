"""One SQLite file of the journal, locked by the process that has it open.

`synchronous=OFF` leaves writes to the page cache: they survive the death of the process, but not of the host. The
rollback journal is kept between transactions, so its blocks are there to delete rows while the disk is full.
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

PAGE_BYTES: Final = 4096

_RESERVED_PAGES: Final = 64  # in the rollback journal; deleting a page of rows changes fewer
_DELETED_ROWS: Final = 200
_DELETED_BYTES: Final = 100_000
_FREE_PAGES: Final = 4096  # kept for reuse; others are returned to the disk
_UNREADABLE_ID: Final = sys.maxsize

_OPTIONS: Final = (f"page_size={PAGE_BYTES}", "auto_vacuum=INCREMENTAL", "locking_mode=EXCLUSIVE", "synchronous=OFF")
_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)"
_INSERT: Final = "INSERT INTO events VALUES (?, ?)"
_ENDS: Final = "SELECT ifnull((SELECT min(id) FROM events), 1) - 1, ifnull((SELECT max(id) FROM events), 0)"


class Locked(Exception):
    """Another process has the file open."""


class JournalFile:
    """Payloads with consecutive ids, of which the first may be published. That is known only in memory."""

    def __init__(self, path: Path) -> None:
        """Open and lock an existing file, which takes 3 ms at any size. Raises Locked, OSError, or sqlite3.Error."""
        self.path = path
        self._inode = _inode(path)
        self._db = sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=0, isolation_level=None)
        try:
            self._lock()
            self.deleted_id, self.last_id = self._ends()
            _inode(path)  # raises if another process deleted it meanwhile
        except BaseException as error:
            self._db.close()
            if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
                raise Locked from error
            raise
        self._marks: deque[tuple[float, int]] = deque()
        self.rewind()

    @classmethod
    def create(cls, path: Path) -> "JournalFile":
        """Create, open and lock a file, and reserve the blocks of its rollback journal."""
        path.touch(mode=0o600, exist_ok=False)
        file = cls(path)
        try:
            file.append([b"\0" * 4000] * _RESERVED_PAGES)
            file._delete(file.last_id)
        except BaseException:
            file.close()
            raise
        return file

    @property
    def rows(self) -> int:
        return self.last_id - self.deleted_id

    @property
    def size_bytes(self) -> int:
        """The pages in use; 0 without rows."""
        return (self._pragma("page_count") - self._pragma("freelist_count")) * PAGE_BYTES if self.rows else 0

    @property
    def pending_bytes(self) -> int:
        """The share of `size_bytes` that is not published, as if all rows had the same length."""
        return self.size_bytes * (self.last_id - self.published_id) // max(1, self.rows)

    @property
    def is_in_place(self) -> bool:
        """False when the file or a folder above it was moved, removed or mounted over."""
        try:
            return _inode(self.path) == self._inode
        except OSError:
            return False

    def append(self, payloads: Sequence[bytes]) -> None:
        """Store all of `payloads` in one transaction, or none and raise sqlite3.Error."""
        if len(payloads) == 1:  # saves 4 µs
            self._db.execute(_INSERT, (self.last_id + 1, payloads[0]))
        else:
            with self._db:
                self._db.execute("BEGIN")
                self._db.executemany(_INSERT, enumerate(payloads, self.last_id + 1))
        self.last_id += len(payloads)

    def read(self, max_bytes: int) -> list[tuple[int, bytes]]:
        """Return ids and payloads that are not published: at most `max_bytes`, or one. Raises sqlite3.Error."""
        found: list[tuple[int, bytes]] = []
        cursor = self._db.execute("SELECT id, payload FROM events WHERE id > ? ORDER BY id", (self.published_id,))
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

    def rewind(self) -> None:
        """Nothing that is left is published."""
        self.published_id = self.expired_id = self.deleted_id
        self._marks.clear()

    def expire(self, now_s: float, keep_s: float) -> None:
        """Set `expired_id` to what was published at a call of this method more than `keep_s` ago."""
        if self.published_id > (self._marks[-1][1] if self._marks else self.expired_id):
            self._marks.append((now_s, self.published_id))
        while self._marks and self._marks[0][0] + keep_s < now_s:
            self.expired_id = self._marks.popleft()[1]

    def delete_page(self, up_to_id: int) -> None:
        """Delete a page of the oldest rows, but none after this id."""
        count = min(_DELETED_ROWS, max(1, _DELETED_BYTES * self.rows // self.size_bytes))
        self._delete(min(up_to_id, self.deleted_id + count))

    def vacuum(self) -> None:
        """Return free pages to the disk, beyond those kept for reuse."""
        if self._pragma("freelist_count") > _FREE_PAGES:
            self._db.executescript(f"PRAGMA incremental_vacuum({_RESERVED_PAGES})")  # execute() frees one page only

    def close(self) -> None:
        """Unlock the file, and remove it if it is empty."""
        if not self.rows:
            self.remove()
        self._db.close()

    def remove(self) -> None:
        """Delete the file while it is locked, so that no other process adopts it."""
        with suppress(OSError):
            if self.is_in_place:
                self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)  # last: without it no process would find the other one
        self._db.close()

    def _lock(self) -> None:
        for option in _OPTIONS:
            self._db.execute(f"PRAGMA {option}")
        self._db.execute("BEGIN EXCLUSIVE")  # kept by the locking mode
        self._db.execute(_SCHEMA)
        self._db.execute("COMMIT")
        self._db.execute("PRAGMA journal_mode=PERSIST")

    def _ends(self) -> tuple[int, int]:
        """Return the id before the first, and the last."""
        try:
            before_first, last = self._db.execute(_ENDS).fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # damaged: `read` returns what comes before
            return 0, _UNREADABLE_ID
        return before_first, last

    def _delete(self, up_to_id: int) -> None:
        self._db.execute("DELETE FROM events WHERE id <= ?", (up_to_id,))
        self.deleted_id = up_to_id
        self.published_id = max(self.published_id, up_to_id)

    def _pragma(self, name: str) -> int:
        [value] = self._db.execute(f"PRAGMA {name}").fetchone()
        return int(value)


def set_aside(path: Path) -> None:
    """Rename a damaged file to NAME.damaged, for `sqlite3 NAME.damaged .recover`."""
    with suppress(OSError):
        path.rename(path.with_suffix(".damaged"))


def _inode(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino

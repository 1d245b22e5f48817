"""The event journal: events are on disk before the response is sent, and stay until they are published.

Accepted events survive the death of the process. They do not survive the loss of the host unless they are published.
Every process writes one file in the journal folder, and adopts the files of dead processes.
"""

import re
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from common.http.context import uuid7
from common.journal.file import JournalFile, Locked, set_aside

log = structlog.get_logger()

MAX_PAYLOAD_BYTES: Final = 1 << 20

_FILE_NAME: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.db", re.ASCII)
_PAGES_PER_COLLECT: Final = 10  # of deleted rows, about 4 ms
_ATTEMPTS: Final = 100


class JournalFull(Exception):
    """The journal or the disk is full, or the disk fails. Nothing of the batch was recorded, so refuse the request."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Payloads to publish. Confirm them with `Journal.mark_published`."""

    payloads: list[bytes]
    ids: list[int]
    file: JournalFile


@dataclass(slots=True)
class Journal:
    """Call all methods from one thread, that of the event loop. A write takes about 15 µs."""

    root: Path
    max_bytes: int = 1 << 30
    keep_s: float = 600.0
    """How long published events are kept, to publish them again if the stream loses them."""
    now: Callable[[], float] = time.monotonic
    files: list[JournalFile] = field(init=False, default_factory=list)
    """Adopted ones, and last the one that is written to."""
    skipped_bytes: int = field(init=False, default=0)
    """Bytes that could not be read because of damage."""
    _free_bytes: int = field(init=False, default=0)
    _own: JournalFile | None = field(init=False, default=None)
    _is_open: bool = field(init=False, default=False)
    _skipped_paths: set[Path] = field(init=False, default_factory=set)

    def open(self) -> None:
        """Create the file of this process and adopt those of dead ones. Raises JournalFull."""
        try:
            self._is_open = True
            self.adopt_orphans()
            if earlier := [str(path.parent) for path in self.root.glob("*/*.seg")]:
                log.error(
                    "journals of release 0.1 are not read; start that release once to publish them",
                    paths=sorted(set(earlier)),
                )
        except (OSError, sqlite3.Error) as error:
            raise JournalFull(f"the journal folder cannot be used: {_reason(error)}") from error

    def close(self) -> None:
        """Unlock all files. The next process adopts what was not published."""
        for file in self.files:
            file.close()
        self.files.clear()
        self._own, self._is_open = None, False

    @property
    def size_bytes(self) -> int:
        """All events, published or not."""
        return sum(file.size_bytes for file in self.files)

    @property
    def pending_bytes(self) -> int:
        """Events that are not published yet."""
        return sum(file.pending_bytes for file in self.files)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Record all `payloads` in one transaction. Raises JournalFull if none was recorded."""
        if not payloads:
            return
        if not self._is_open:
            raise JournalFull("the journal is not open")
        if max(map(len, payloads)) > MAX_PAYLOAD_BYTES:
            raise ValueError(f"a journal payload has at most {MAX_PAYLOAD_BYTES} bytes")
        try:
            self._make_room(sum(map(len, payloads)))
            while not self._append(payloads):
                if not self._delete_page(at_once=True):
                    raise JournalFull("the disk is full")
        except (OSError, sqlite3.Error) as error:
            raise JournalFull(f"the journal cannot be written: {_reason(error)}") from error

    def _make_room(self, size_bytes: int) -> None:
        """Measure the files only when what was last measured as free is half used: that costs more than a write."""
        if size_bytes > self._free_bytes:
            while (free_bytes := self.max_bytes - self.size_bytes) < size_bytes:
                if not self._delete_page(at_once=True):
                    raise JournalFull("the journal is full, because its events could not be published")
            self._free_bytes = max(size_bytes, free_bytes // 2)
        self._free_bytes -= size_bytes

    def next_chunk(self, max_bytes: int = 1 << 18) -> Chunk | None:
        """Return the oldest unpublished payloads of one file, or None. One payload may be longer than `max_bytes`."""
        for file in [file for file in self.files if file.published_id < file.last_id]:
            try:
                rows = file.read(max_bytes)
            except sqlite3.Error as error:
                self._drop_damaged(file, error)
                continue
            if rows:
                return Chunk([payload for _, payload in rows], [id for id, _ in rows], file)
        return None

    def mark_published(self, chunk: Chunk, count: int) -> None:
        """The stream has acknowledged the first `count` payloads of `chunk`."""
        if count:
            chunk.file.published_id = chunk.ids[count - 1]

    def rewind(self) -> None:
        """Publish everything that is still kept again, because the stream lost events."""
        for file in self.files:
            file.rewind()

    def collect(self) -> None:
        """Delete events that were published more than `keep_s` before this call. Raises OSError or sqlite3.Error."""
        for file in self.files:
            file.expire(self.now(), self.keep_s)
            file.vacuum()
        for _ in range(_PAGES_PER_COLLECT):
            if not self._delete_page(at_once=False):
                break

    def adopt_orphans(self) -> int:
        """Take over the files of dead processes; return how many. Raises OSError or sqlite3.Error.

        A file that cannot be opened is logged once, and tried again each time.
        """
        self._free_bytes = 0
        self._writable()
        adopted = 0
        for path in sorted(self.root.iterdir()):
            if _FILE_NAME.fullmatch(path.name) and all(path != file.path for file in self.files):
                adopted += self._adopt(path, adopted)
        return adopted

    def _adopt(self, path: Path, position: int) -> bool:
        try:
            file = JournalFile(path)
        except (Locked, FileNotFoundError):
            return False
        except (OSError, sqlite3.OperationalError) as error:
            if path not in self._skipped_paths and path.exists():
                self._skipped_paths.add(path)
                log.error("journal of a dead process cannot be adopted", path=str(path), reason=str(error))
            return False
        except sqlite3.DatabaseError as error:
            self._set_aside(path, path.stat().st_size, error)
            return False
        if not file.rows:
            file.close()
            return False
        self.files.insert(position, file)
        return True

    def _append(self, payloads: Sequence[bytes]) -> bool:
        """False when the disk is full."""
        try:
            self._writable().append(payloads)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                return False
            raise
        return True

    def _writable(self) -> JournalFile:
        """The file of this process, replaced if it was moved or removed: no other process would find its events."""
        if self._own is not None and self._own.is_in_place:
            return self._own
        own = self._create()
        if self._own is not None:
            log.error("journal file moved or removed; writing to a new one", path=str(own.path))
        self._own = own
        self.files.append(own)
        return own

    def _create(self) -> JournalFile:
        """Another process may take a new file for an orphan before it is locked, so this tries again."""
        for _ in range(_ATTEMPTS):
            self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                return JournalFile.create(self.root / f"{uuid7()}.db")
            except (Locked, FileNotFoundError):
                continue
        raise BlockingIOError("other processes take every new journal file")

    def _delete_page(self, *, at_once: bool) -> bool:
        """Delete a page of the oldest expired events, or published ones if `at_once`; False if there are none."""
        for file in self.files:
            up_to_id = file.published_id if at_once else file.expired_id
            if up_to_id == file.last_id and file is not self._own:
                file.remove()
                self.files.remove(file)
                return True
            if up_to_id > file.deleted_id:
                file.delete_page(up_to_id)
                return True
        return False

    def _drop_damaged(self, file: JournalFile, error: sqlite3.Error) -> None:
        self._set_aside(file.path, file.pending_bytes, error)
        file.close()
        self.files.remove(file)
        if file is self._own:
            self._own = None

    def _set_aside(self, path: Path, lost_bytes: int, error: sqlite3.Error) -> None:
        self.skipped_bytes += lost_bytes
        log.error("journal file damaged; set aside", path=str(path), lost_bytes=lost_bytes, reason=str(error))
        set_aside(path)


def _reason(error: OSError | sqlite3.Error) -> object:
    return error.strerror if isinstance(error, OSError) else error

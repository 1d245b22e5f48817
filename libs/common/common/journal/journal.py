"""The prediction journal: events are appended to disk before the answer goes out, and kept until they are safe.

Promise: what `append` accepted survives the death of this process (the page cache keeps it); it does not
survive the loss of the host until it was shipped. Append-only segments of frames (`common.journal.records`) lie in one
locked directory per process; the segments of dead processes are adopted. A torn last frame is ignored, a damaged
one costs itself only. The journal knows nothing of Redis: `common.journal.publisher` reads it.
"""

import errno
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from common.journal.lock import acquire_directory, remove_directory, try_lock_directory
from common.journal.records import Scan, frame
from common.journal.segments import Chunk, Segment, read

log = structlog.get_logger()

RETRY_S: Final = 10.0  # until a segment that could not be read is tried again

_DIRECTORY_NAME: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


class JournalFull(Exception):
    """No room is left (or the disk refuses): nothing of the batch was recorded, so nothing may be answered."""


@dataclass(slots=True)
class Journal:
    """Single-threaded: every method is called from one event loop; writes go to the page cache in microseconds."""

    root: Path
    max_bytes: int = 1 << 30
    segment_bytes: int = 8 << 20
    segment_s: float = 60.0
    keep_s: float = 600.0
    now: Callable[[], float] = time.monotonic
    segments: list[Segment] = field(default_factory=list)
    size_bytes: int = field(init=False, default=0)
    """Bytes on disk, shipped or not."""
    skipped_bytes: int = field(init=False, default=0)
    """Bytes that no frame could be read from: a torn last write of a killed process, or damage."""
    _directory: Path = field(init=False)
    _lock: int = field(init=False, default=-1)
    _fd: int = field(init=False, default=-1)
    _opened: int = field(init=False, default=0)
    _left_alone: set[Path] = field(init=False, default_factory=set)

    def open(self) -> None:
        """Create and lock this process's directory, and adopt those of dead processes. Raises JournalFull."""
        try:
            self._claim()
            self.adopt_orphans()
        except OSError as error:
            raise JournalFull(f"the journal folder cannot be used: {error.strerror}") from error

    def close(self) -> None:
        """Seal the active segment and unlock; what was not shipped is adopted by the next process."""
        self._seal()
        if self._lock >= 0:
            if not self.segments:
                remove_directory(self._directory)
            os.close(self._lock)
            self._lock = -1
        self.segments.clear()
        self.size_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Bytes not shipped yet."""
        return sum(segment.size_bytes - segment.shipped_bytes for segment in self.segments)

    def append(self, payloads: Sequence[bytes]) -> None:
        """Record all of `payloads` with one completed write, or raise JournalFull and record none."""
        data = b"".join(map(frame, payloads))
        if not data:
            return
        if self._lock < 0:
            raise JournalFull("the journal is not open")
        try:
            while self.size_bytes + len(data) > self.max_bytes:
                if not self._free_one_shipped():
                    raise JournalFull("the journal is full: its store has been away too long")
            while not self._write(data):
                if not self._free_one_shipped():
                    raise JournalFull("the disk is full")
        except OSError as error:
            raise JournalFull(f"the journal cannot be written: {error.strerror}") from error

    def next_chunk(self, max_bytes: int = 1 << 18) -> Chunk | None:
        """The oldest unshipped payloads of one segment, or None when everything is shipped that can be read now."""
        for segment in list(self.segments):
            while segment.shipped_bytes < segment.size_bytes and segment.retry_at_s <= self.now():
                try:
                    found = read(segment, max_bytes)
                except OSError as error:
                    self._set_aside(segment, error)
                    break
                if found is None:
                    self._forget(segment)
                    break
                self._count_skipped(segment, found)
                chunk = Chunk(found.payloads, segment, found.end, found.ends)
                if chunk.payloads:
                    return chunk
                self.mark_shipped(chunk)  # nothing but damage
        return None

    def mark_shipped(self, chunk: Chunk, count: int | None = None) -> None:
        """The store has acknowledged `chunk`, or only the first `count` of its payloads."""
        is_whole = count is None or count >= len(chunk.payloads)
        end = chunk.end if is_whole else chunk.ends[count - 1] if count else 0
        chunk.segment.shipped_bytes = max(chunk.segment.shipped_bytes, end)
        chunk.segment.shipped_at_s = self.now()

    def rewind(self) -> None:
        """Ship everything that is still kept once more: the store forgot what it had acknowledged."""
        for segment in self.segments:
            segment.shipped_bytes = 0

    def collect(self) -> None:
        """Seal what is old and delete what was shipped more than `keep_s` ago."""
        if self._fd >= 0 and self.now() - self.segments[-1].created_s > self.segment_s:
            self._seal()
        limit = self.now() - self.keep_s
        for segment in [s for s in self.segments if s.is_shipped and s.shipped_at_s < limit]:
            self._delete(segment)

    def adopt_orphans(self) -> int:
        """Take over the segments of processes that died; returns how many directories were adopted.

        A directory that cannot be taken (another user's) is named in the log once and left alone.
        """
        adopted = 0
        if not self._directory.exists():
            self._claim()
        skipped = {self._directory, *self._left_alone}
        for directory in sorted(self.root.iterdir()):
            if _DIRECTORY_NAME.fullmatch(directory.name) and directory not in skipped:
                try:
                    adopted += self._adopt(directory)
                except OSError as error:
                    self._left_alone.add(directory)
                    log.warning("journal of a dead process left alone", directory=str(directory), error=error.strerror)
        return adopted

    def _claim(self) -> None:
        """A folder of this process's own, a new one where someone removed the old one under us."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory, lock = acquire_directory(self.root)
        if self._lock >= 0:
            self._seal()
            os.close(self._lock)
            log.error("journal folder is gone; there is a new one", directory=str(directory))
        self._directory, self._lock = directory, lock

    def _adopt(self, directory: Path) -> bool:
        lock = try_lock_directory(directory)
        if lock is None:
            return False
        found = []
        try:
            for path in sorted(directory.glob("*.seg")):
                mine = self._directory / path.name
                size_bytes = path.stat().st_size
                path.rename(mine)
                found.append(Segment(mine, size_bytes, sealed=True, created_s=self.now()))
            remove_directory(directory)
        finally:
            self.segments[:0] = found
            self.size_bytes += sum(segment.size_bytes for segment in found)
            os.close(lock)
        return bool(found)

    def _write(self, data: bytes) -> bool:
        """Append `data` in one write; False when the disk has no room for it or a file, and nothing of it is left."""
        try:
            segment = self._active(len(data))
            try:
                written = os.write(self._fd, data)
            except OSError:
                self._cut_off(segment)
                raise
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                return False
            raise
        if written < len(data):
            self._cut_off(segment)
            return False
        segment.size_bytes += written
        self.size_bytes += written
        return True

    def _cut_off(self, segment: Segment) -> None:
        """What a failed write left must not pass for an answered prediction, nor stand before the next frame."""
        try:
            os.ftruncate(self._fd, segment.size_bytes)
        except OSError:
            self._seal()

    def _active(self, needed: int) -> Segment:
        if self._fd >= 0 and not self._is_in_place(self.segments[-1]):  # nobody would find what is written to it
            self._forget(self.segments[-1])
        limit = min(self.segment_bytes, self.max_bytes // 8)
        if self._fd >= 0 and (self.segments[-1].size_bytes + needed <= limit or not self.segments[-1].size_bytes):
            return self.segments[-1]
        self._seal()
        try:
            self._open_segment()
        except FileNotFoundError:
            self._claim()
            self._open_segment()
        return self.segments[-1]

    def _is_in_place(self, active: Segment) -> bool:
        """Neither was it removed, nor it or a folder above it moved, nor another disk mounted over one."""
        try:
            return os.path.samestat(os.fstat(self._fd), active.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _open_segment(self) -> None:
        self._opened += 1
        path = self._directory / f"{self._directory.name}-{self._opened:08d}.seg"  # unique and in order when adopted
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.segments.append(Segment(path, 0, sealed=False, created_s=self.now()))

    def _seal(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1  # also where closing fails the number is free, and soon another file's
            self.segments[-1].sealed = True
            os.close(fd)

    def _free_one_shipped(self) -> bool:
        """Delete the oldest segment that is kept only in case the store forgets; False when there is none."""
        if self._fd >= 0 and self.segments[-1].shipped_bytes >= self.segments[-1].size_bytes > 0:
            self._seal()
        for segment in self.segments:
            if segment.is_shipped:
                self._delete(segment)
                return True
        return False

    def _delete(self, segment: Segment) -> None:
        segment.path.unlink(missing_ok=True)
        self.segments.remove(segment)
        self.size_bytes -= segment.size_bytes

    def _forget(self, segment: Segment) -> None:
        """Someone removed or cut the file under us: say what was lost, and go on with the rest."""
        log.error("journal segment is gone", lost_bytes=segment.size_bytes - segment.shipped_bytes)
        if not segment.sealed:
            self._seal()
        self._delete(segment)

    def _set_aside(self, segment: Segment, error: OSError) -> None:
        if not segment.retry_at_s:
            log.error("journal segment cannot be read", segment=str(segment.path), error=error.strerror)
        segment.retry_at_s = self.now() + RETRY_S

    def _count_skipped(self, segment: Segment, found: Scan) -> None:
        if found.skipped_bytes and found.end > segment.scanned_bytes:
            self.skipped_bytes += found.skipped_bytes
            log.warning("journal bytes skipped", segment=segment.path.name, skipped_bytes=found.skipped_bytes)
        segment.scanned_bytes = max(segment.scanned_bytes, found.end)

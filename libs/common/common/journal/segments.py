"""One append-only file of the journal: how far it was shipped, and the reading of its next frames; it writes none."""

from dataclasses import dataclass
from pathlib import Path

from common.journal.records import MAX_FRAME_BYTES, Scan, scan


@dataclass(slots=True)
class Segment:
    """One append-only file and how far it has been shipped."""

    path: Path
    size_bytes: int
    sealed: bool
    created_s: float
    shipped_bytes: int = 0
    shipped_at_s: float = 0.0
    scanned_bytes: int = 0
    retry_at_s: float = 0.0
    """Until then it is left aside: it could not be read."""

    @property
    def is_shipped(self) -> bool:
        return self.sealed and self.shipped_bytes >= self.size_bytes


@dataclass(frozen=True, slots=True)
class Chunk:
    """Payloads to ship, the offset behind each, and where they all end; confirmed with `Journal.mark_shipped`."""

    payloads: list[bytes]
    segment: Segment
    end: int
    ends: list[int]


def read(segment: Segment, max_bytes: int) -> Scan | None:
    """About `max_bytes` of frames from the shipped mark on, at least one if there is one, with offsets in the file.

    None when the file, or all of it behind the mark, is gone.
    """
    start, left = segment.shipped_bytes, segment.size_bytes - segment.shipped_bytes
    try:
        with segment.path.open("rb") as file:
            for size in (max_bytes, MAX_FRAME_BYTES):
                file.seek(start)
                found = scan(file.read(min(size, left)), is_last=size >= left)
                if found.end:
                    break
    except FileNotFoundError:
        return None
    if not found.end:
        return None
    found.ends = [start + end for end in found.ends]
    found.end += start
    return found

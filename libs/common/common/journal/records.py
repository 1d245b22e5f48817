"""Frames in a journal file: each payload behind a mark, its length and a checksum, so that damage costs only itself."""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

MAX_PAYLOAD_BYTES: Final = 1 << 20
_MARK: Final = b"\xf5\xf6\xf7\xf8"  # bytes that UTF-8 text never holds: after damage the next frame is found by them
_HEADER: Final = struct.Struct("<4sII")
MAX_FRAME_BYTES: Final = _HEADER.size + MAX_PAYLOAD_BYTES


@dataclass(slots=True)
class Scan:
    """Whole frames of some bytes, the offset behind each, and how far the bytes were understood."""

    payloads: list[bytes] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    end: int = 0
    skipped_bytes: int = 0


def frame(payload: bytes) -> bytes:
    """Frame one payload of at most MAX_PAYLOAD_BYTES; raises ValueError for a longer one."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a journal payload has at most {MAX_PAYLOAD_BYTES} bytes")
    return _HEADER.pack(_MARK, len(payload), _checksum(len(payload), payload)) + payload


def scan(data: bytes, *, is_last: bool) -> Scan:
    """Read frames from the start of `data`; damaged bytes are skipped up to the next whole frame.

    With `is_last` nothing follows `data`, so what is left at its end is a torn frame and is skipped; without it,
    an unfinished frame is left for a longer read.
    """
    found = Scan()
    while found.end < len(data):
        at = found.end
        end = _frame_end(data, at)
        if end is not None and end > len(data) and not is_last:
            break
        if end is not None and end <= len(data) and _is_whole(data, at, end):
            found.payloads.append(data[at + _HEADER.size : end])
            found.ends.append(end)
            found.end = end
        else:
            found.end = _next_mark(data, at + 1, is_last)
            found.skipped_bytes += found.end - at
    return found


def _frame_end(data: bytes, at: int) -> int | None:
    """Where the frame at `at` should end (past the data, when its header is cut off); None if there is none."""
    if at + _HEADER.size > len(data):
        return at + _HEADER.size if _MARK.startswith(data[at : at + len(_MARK)]) else None
    mark, length, _ = _HEADER.unpack_from(data, at)
    return at + _HEADER.size + length if mark == _MARK and length <= MAX_PAYLOAD_BYTES else None


def _is_whole(data: bytes, at: int, end: int) -> bool:
    _, length, checksum = _HEADER.unpack_from(data, at)
    return bool(_checksum(length, data[at + _HEADER.size : end]) == checksum)


def _next_mark(data: bytes, at: int, is_last: bool) -> int:
    found = data.find(_MARK, at)
    if found >= 0:
        return found
    return len(data) if is_last else max(at, len(data) - len(_MARK) + 1)  # a mark may be cut in two by the end


def _checksum(length: int, payload: bytes) -> int:
    return zlib.crc32(payload, length)

"""Reads journals of the releases before 0.2: directories of segments with checksummed records."""

import fcntl
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

_DIRECTORY_NAME: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_MARK: Final = b"\xf5\xf6\xf7\xf8"  # never part of UTF-8 text
_HEADER: Final = struct.Struct("<4sII")


def is_directory_name(name: str) -> bool:
    return _DIRECTORY_NAME.fullmatch(name) is not None


def migrate(directory: Path, append: Callable[[Sequence[bytes]], None]) -> bool:
    """Append the payloads of a dead process and delete its directory; False if it has none or is alive."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        segments = sorted(directory.glob("*.seg"))
        for path in segments:
            if payloads := list(records(path.read_bytes())):
                append(payloads)
            path.unlink()
        with suppress(OSError):  # something else is in it
            (directory / "lock").unlink()
            directory.rmdir()
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return bool(segments)


def records(data: bytes) -> Iterator[bytes]:
    """Yield the payloads of a segment. Damaged or torn records are skipped."""
    at = data.find(_MARK)
    while 0 <= at <= len(data) - _HEADER.size:
        _, length, checksum = _HEADER.unpack_from(data, at)
        payload = data[at + _HEADER.size : at + _HEADER.size + length]
        if len(payload) == length and zlib.crc32(payload, length) == checksum:
            yield payload
            at += _HEADER.size + length - 1
        at = data.find(_MARK, at + 1)

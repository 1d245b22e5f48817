"""Journals of earlier releases lose nothing in an upgrade."""

import fcntl
import os
import struct
import zlib
from pathlib import Path

import pytest

from common.http.context import uuid7
from common.journal.journal import Journal
from common.journal.legacy import records


def record(payload: bytes) -> bytes:
    return struct.pack("<4sII", b"\xf5\xf6\xf7\xf8", len(payload), zlib.crc32(payload, len(payload))) + payload


def directory(root: Path, *segments: bytes) -> Path:
    """Write the journal directory of a process of an earlier release."""
    path = root / uuid7()
    path.mkdir(parents=True)
    (path / "lock").touch()
    for number, data in enumerate(segments, 1):
        (path / f"{path.name}-{number:08d}.seg").write_bytes(data)
    return path


def pending(root: Path) -> list[bytes]:
    journal, payloads = Journal(root), []
    journal.open()
    while (chunk := journal.next_chunk()) is not None:
        payloads += chunk.payloads
        journal.mark_shipped(chunk)
    journal.close()
    return payloads


def test_old_journal__is_migrated_in_order_and_removed(tmp_path: Path) -> None:
    old = directory(tmp_path, record(b"1") + record(b"2"), record(b""), record(b"3"))
    assert pending(tmp_path) == [b"1", b"2", b"", b"3"]
    assert not old.exists()


def test_old_journal_of_a_living_process__is_migrated_once_it_ends(tmp_path: Path) -> None:
    old = directory(tmp_path, record(b"1"))
    fd = os.open(old / "lock", os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert pending(tmp_path) == []
    os.close(fd)
    assert pending(tmp_path) == [b"1"]


def test_old_directory_with_other_content__keeps_it(tmp_path: Path) -> None:
    old = directory(tmp_path, record(b"1"))
    (old / "note").touch()
    assert pending(tmp_path) == [b"1"]
    assert (old / "note").exists()


TWO = record(b"first") + record(b"second")


@pytest.mark.parametrize(
    ("data", "payloads"),
    [
        (b"", []),
        (TWO, [b"first", b"second"]),
        (TWO[:-1], [b"first"]),
        (TWO[:20], [b"first"]),
        (TWO[:14] + b"X" + TWO[15:], [b"second"]),
        (b"\0" * 17 + TWO, [b"first", b"second"]),
        (TWO[:4] + b"\xff\xff\xff\x7f" + TWO[8:], [b"second"]),
        (record(b"\xf5\xf6\xf7\xf8") + record(b"after"), [b"\xf5\xf6\xf7\xf8", b"after"]),
    ],
)
def test_damaged_segment__costs_the_damaged_records_only(data: bytes, payloads: list[bytes]) -> None:
    assert list(records(data)) == payloads

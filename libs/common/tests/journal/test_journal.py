"""The journal against a model, against damage, against a full disk, and against kill -9."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.journal.journal import Journal, JournalFull
from common.journal.records import MAX_PAYLOAD_BYTES


class Clock:
    def __init__(self) -> None:
        self.at_s = 1000.0

    def __call__(self) -> float:
        return self.at_s


@contextmanager
def opened(root: Path, **options: object) -> Iterator[Journal]:
    journal = Journal(root, **options)  # type: ignore[arg-type]  # each test names its own few
    journal.open()
    try:
        yield journal
    finally:
        journal.close()


def shipped(journal: Journal, max_bytes: int = 1 << 18) -> list[bytes]:
    """Take everything that is pending, as a store that acknowledges at once would."""
    payloads = []
    while (chunk := journal.next_chunk(max_bytes)) is not None:
        payloads += chunk.payloads
        journal.mark_shipped(chunk)
    return payloads


class JournalModel(RuleBasedStateMachine):
    """Two journals on one root, one of which may die: whatever was appended is pending or shipped, in order."""

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.root = Path(tempfile.mkdtemp())
        self.journal = self.fresh()
        self.pending: list[bytes] = []
        self.kept: list[bytes] = []
        self.next = 0

    def fresh(self) -> Journal:
        journal = Journal(self.root, segment_bytes=200, segment_s=10, keep_s=100, now=self.clock)
        journal.open()
        return journal

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.close()
            shutil.rmtree(self.root)

    @rule(sizes=st.lists(st.integers(0, 120), max_size=5))
    def append(self, sizes: list[int]) -> None:
        payloads = [f"{self.next + i}".encode().ljust(size, b".") for i, size in enumerate(sizes)]
        self.next += len(sizes)
        self.journal.append(payloads)
        self.pending += payloads

    @rule(max_bytes=st.integers(1, 400), share=st.floats(0, 1))
    def ship_some(self, max_bytes: int, share: float) -> None:
        chunk = self.journal.next_chunk(max_bytes)
        if chunk is None:
            assert self.pending == []
            return
        assert chunk.payloads == self.pending[: len(chunk.payloads)] != []
        count = round(share * len(chunk.payloads))
        self.journal.mark_shipped(chunk, count)
        self.kept += self.pending[:count]
        del self.pending[:count]

    @rule(seconds=st.sampled_from([1, 11, 101]))
    def collect(self, seconds: int) -> None:
        self.clock.at_s += seconds
        self.journal.collect()

    @rule()
    def forget(self) -> None:
        """What is shipped again ends in what was pending, and holds nothing that was never appended, in order."""
        self.journal.rewind()
        again = self.reread()
        assert again[len(again) - len(self.pending) :] == self.pending
        assert (self.kept + self.pending)[-len(again) :] == again or not again
        self.pending, self.kept = again, []

    @rule()
    def die_and_be_adopted(self) -> None:
        os.close(self.journal._lock)  # what the death of a process does; nothing is sealed or removed
        self.journal._lock = -1
        successor = self.fresh()
        self.journal.close()
        self.journal = successor
        again = self.reread()
        assert again[len(again) - len(self.pending) :] == self.pending
        assert len(list(self.root.iterdir())) == 1
        self.pending, self.kept = again, []

    def reread(self) -> list[bytes]:
        marks = [(segment, segment.shipped_bytes, segment.shipped_at_s) for segment in self.journal.segments]
        again = shipped(self.journal)
        for segment, shipped_bytes, at_s in marks:
            segment.shipped_bytes, segment.shipped_at_s = shipped_bytes, at_s
        return again

    @precondition(lambda self: hasattr(self, "journal"))
    @invariant()
    def sizes_are_those_on_disk(self) -> None:
        on_disk = sum(path.stat().st_size for path in self.root.glob("*/*.seg"))
        assert self.journal.size_bytes == on_disk >= self.journal.pending_bytes
        assert self.journal.skipped_bytes == 0


TestJournalModel = JournalModel.TestCase
TestJournalModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_batch__is_recorded_whole_or_not_at_all(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=1000) as journal:
        journal.append([b"a" * 400])
        with pytest.raises(JournalFull):
            journal.append([b"b" * 300, b"c" * 300])
        assert shipped(journal) == [b"a" * 400]


def test_full_journal__frees_shipped_segments_first_then_refuses(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=4000, segment_bytes=400) as journal:
        first = [bytes([65 + i]) * 350 for i in range(11)]
        for payload in first:
            journal.append([payload])
        with pytest.raises(JournalFull, match="full"):
            journal.append([b"x" * 350])
        chunk = journal.next_chunk(max_bytes=1)
        assert chunk is not None
        journal.mark_shipped(chunk)
        journal.append([b"y" * 350])
        with pytest.raises(JournalFull):
            journal.append([b"z" * 350])
        assert shipped(journal) == [*first[1:], b"y" * 350]
        assert journal.size_bytes <= 4000


def test_small_journal_all_shipped__takes_more(tmp_path: Path) -> None:
    """Its one segment is still being written: sealing must not wait for its age."""
    with opened(tmp_path, max_bytes=1 << 16) as journal:
        for _ in range(100):
            journal.append([b"x" * 5000])
            assert len(shipped(journal)) == 1


def test_small_journal_partly_shipped__frees_that_part(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=1 << 16) as journal:
        with pytest.raises(JournalFull):
            while True:
                journal.append([b"x" * 500])
        for _ in range(2):
            chunk = journal.next_chunk()
            assert chunk is not None
            journal.mark_shipped(chunk)
        journal.append([b"y" * 500])


def test_shipped_segments__are_kept_then_deleted(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, now=clock, segment_s=60, keep_s=600) as journal:
        journal.append([b"a"])
        shipped(journal)
        clock.at_s += 61
        journal.collect()
        journal.append([b"b"])
        clock.at_s += 538
        journal.collect()
        journal.rewind()
        assert shipped(journal) == [b"a", b"b"]
        clock.at_s += 601
        journal.collect()
        journal.rewind()
        assert shipped(journal) == []
        assert journal.size_bytes == 0


def test_unshipped_segments__are_never_collected(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, now=clock) as journal:
        journal.append([b"a"])
        clock.at_s += 1e6
        journal.collect()
        assert shipped(journal) == [b"a"]


def test_segment_that_is_written_to__is_never_collected(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, now=clock, segment_s=600, keep_s=60) as journal:
        journal.append([b"a"])
        shipped(journal)
        clock.at_s += 61
        journal.collect()
        journal.append([b"b"])
        assert shipped(journal) == [b"b"]


def test_chunk__is_bounded_whatever_the_backlog(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for _ in range(40):
            journal.append([b"x" * 100_000])
        chunk = journal.next_chunk()
        assert chunk is not None
        assert sum(map(len, chunk.payloads)) <= 1 << 18
        assert len(shipped(journal)) == 40


def test_longest_payloads__pass(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        longest = [bytes([i]) * MAX_PAYLOAD_BYTES for i in range(3)]
        journal.append([b"small", *longest, b"small"])
        assert shipped(journal) == [b"small", *longest, b"small"]


def test_oversized_payload__is_refused_and_nothing_of_its_batch_recorded(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        with pytest.raises(ValueError, match="at most"):
            journal.append([b"small", bytes(MAX_PAYLOAD_BYTES + 1)])
        assert shipped(journal) == []


def test_damage_in_the_middle__costs_one_frame_and_is_counted(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=100) as journal:
        for number in range(6):
            journal.append([f"{number}".encode() * 40])
        journal.segments[2].path.write_bytes(b"\0" * journal.segments[2].size_bytes)
        damaged = bytearray(journal.segments[0].path.read_bytes())
        damaged[20] ^= 1
        journal.segments[0].path.write_bytes(damaged)
        assert [payload[:1] for payload in shipped(journal)] == [b"1", b"3", b"4", b"5"]
        assert journal.skipped_bytes == 2 * journal.segments[0].size_bytes
        journal.rewind()
        assert len(shipped(journal)) == 4
        assert journal.skipped_bytes == 2 * journal.segments[0].size_bytes


def test_damaged_length__does_not_swallow_what_follows(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append([b"x" * 1000 for _ in range(1000)])
        damaged = bytearray(journal.segments[0].path.read_bytes())
        damaged[4:8] = (1 << 19).to_bytes(4, "little")
        journal.segments[0].path.write_bytes(damaged)
        assert len(shipped(journal)) == 999


def test_removed_segment_file__is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path, segment_bytes=10) as journal:
        for payload in (b"a", b"b", b"c"):
            journal.append([payload * 20])
        journal.segments[0].path.unlink()
        journal.segments[2].path.unlink()
        assert shipped(journal) == [b"b" * 20]
        journal.append([b"d"])
        assert shipped(journal) == [b"d"]


@pytest.mark.parametrize("segment_bytes", [10, 1000])
@pytest.mark.parametrize("removed", ["what is in it", "all of it"])
def test_journal_folder_that_was_removed__is_made_anew(tmp_path: Path, removed: str, segment_bytes: int) -> None:
    root = tmp_path / "journal"
    with opened(root, segment_bytes=segment_bytes) as journal:
        journal.append([b"a" * 20])
        shutil.rmtree(root)
        if removed == "what is in it":
            root.mkdir()
        journal.append([b"b" * 20])
        assert len(list(root.glob("*/*.seg"))) == 1
        assert shipped(journal) == [b"b" * 20]
        with opened(root) as other:
            assert shipped(other) == []  # the new folder is locked


@pytest.mark.parametrize("then", ["nothing", "another folder"])
def test_journal_folder_that_was_moved_away__is_made_anew(tmp_path: Path, then: str) -> None:
    root = tmp_path / "journal"
    with opened(root) as journal:
        journal.append([b"a" * 20])
        root.rename(tmp_path / "moved")
        if then == "another folder":
            root.mkdir()
        journal.append([b"b" * 20])
        assert shipped(journal) == [b"b" * 20]


def test_file_where_the_journal_folder_was__is_refused_until_it_is_gone(tmp_path: Path) -> None:
    root = tmp_path / "journal"
    with opened(root) as journal:
        journal.append([b"a" * 20])
        root.rename(tmp_path / "moved")
        root.touch()
        for _ in range(2):
            with pytest.raises(JournalFull):
                journal.append([b"b" * 20])
        root.unlink()
        journal.append([b"c" * 20])
        assert shipped(journal) == [b"c" * 20]


def test_own_folder_that_was_removed__is_made_anew_before_others_are_adopted(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        [own] = tmp_path.iterdir()
        shutil.rmtree(own)
        with opened(tmp_path) as dead:
            dead.append([b"left"])
        assert journal.adopt_orphans() == 1
        assert shipped(journal) == [b"left"]


def test_segment_that_cannot_be_read__is_left_aside_and_tried_again(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, segment_bytes=10, now=clock) as journal:
        for payload in (b"a", b"b"):
            journal.append([payload * 20])
        unreadable = journal.segments[0].path
        whole = unreadable.rename(tmp_path / "whole")
        unreadable.mkdir()
        assert shipped(journal) == [b"b" * 20]
        assert journal.pending_bytes == journal.segments[0].size_bytes
        unreadable.rmdir()
        whole.rename(unreadable)
        assert shipped(journal) == []
        clock.at_s += 10
        assert shipped(journal) == [b"a" * 20]


@pytest.mark.parametrize("kept_bytes", [0, 30, 32])
def test_segment_file_that_was_cut__is_reported_and_the_rest_goes_on(tmp_path: Path, kept_bytes: int) -> None:
    with opened(tmp_path, segment_bytes=64) as journal:
        for payload in (b"a", b"b", b"c", b"d", b"e"):
            journal.append([payload * 20])  # 32 bytes with its frame: two a segment
        os.truncate(journal.segments[0].path, kept_bytes)
        os.truncate(journal.segments[2].path, 0)
        whole = [b"a" * 20] if kept_bytes == 32 else []
        assert shipped(journal) == [*whole, b"c" * 20, b"d" * 20]
        journal.append([b"f"])
        assert shipped(journal) == [b"f"]
        assert journal.pending_bytes == 0


def test_closed_journal__refuses(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        pass
    with pytest.raises(JournalFull, match="not open"):
        journal.append([b"a"])
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_a_file__is_named(tmp_path: Path) -> None:
    (tmp_path / "journal").touch()
    with pytest.raises(JournalFull, match="folder cannot be used: File exists"):
        Journal(tmp_path / "journal").open()


def test_foreign_folders__are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "notes.seg").touch()
    with opened(tmp_path):
        assert (tmp_path / "photos").is_dir()
        assert list((tmp_path / "photos").iterdir()) == []


def test_living_process__keeps_its_directory(tmp_path: Path) -> None:
    with opened(tmp_path) as first, opened(tmp_path) as second:
        first.append([b"mine"])
        assert (first.adopt_orphans(), second.adopt_orphans()) == (0, 0)
        assert shipped(second) == []
        assert shipped(first) == [b"mine"]


def test_closed_process__leaves_what_was_not_shipped_to_the_next(tmp_path: Path) -> None:
    with opened(tmp_path) as first:
        first.append([b"left"])
    with opened(tmp_path) as second:
        second.append([b"new"])
        assert shipped(second) == [b"left", b"new"]
        assert len(list(tmp_path.iterdir())) == 1


def test_adopted_segments__are_kept_then_removed(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path) as first:
        first.append([b"left"])
    with opened(tmp_path, now=clock) as second:
        assert shipped(second) == [b"left"]
        second.rewind()
        assert shipped(second) == [b"left"]
        clock.at_s += 601
        second.collect()
        assert (second.segments, second.size_bytes) == ([], 0)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_and_adopt_at_once__neither_fail_nor_lose(tmp_path: Path) -> None:
    """A directory made but not locked yet looks like a dead process's."""

    def life(number: int) -> list[bytes]:
        journal = Journal(tmp_path)
        journal.open()
        journal.append([f"{number}".encode()])
        journal.adopt_orphans()
        payloads = shipped(journal) if number % 2 else []
        journal.close()
        return payloads

    with ThreadPoolExecutor(8) as pool:
        taken = [payload for payloads in pool.map(life, range(200)) for payload in payloads]
    with opened(tmp_path) as last:
        taken += shipped(last)
    assert set(taken) == {f"{number}".encode() for number in range(200)}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_disk_without_room_for_another_file__frees_shipped_segments_first_then_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """It may have run out of inodes while there are bytes enough."""
    really_open = os.open

    def open_if_there_is_room(path: Path, *arguments: int) -> int:
        if len(list(tmp_path.glob("*/*.seg"))) == 3:
            raise OSError(error, os.strerror(error))
        return really_open(path, *arguments)

    with opened(tmp_path, segment_bytes=10) as journal:
        monkeypatch.setattr(os, "open", open_if_there_is_room)
        for payload in (b"a", b"b", b"c"):
            journal.append([payload * 20])  # a segment each
        with pytest.raises(JournalFull, match="the disk is full"):
            journal.append([b"x" * 20])
        chunk = journal.next_chunk()
        assert chunk is not None
        journal.mark_shipped(chunk)
        journal.append([b"d" * 20])
        assert shipped(journal) == [payload * 20 for payload in (b"b", b"c", b"d")]


def test_disk_that_fails__is_named_and_frees_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_fd: int, _data: bytes) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tmp_path, segment_bytes=10) as journal:
        for payload in (b"a", b"b"):
            journal.append([payload * 20])  # a segment each
        assert len(shipped(journal)) == 2
        with monkeypatch.context() as failing:
            failing.setattr(os, "write", fail)
            with pytest.raises(JournalFull, match="cannot be written: Input/output error"):
                journal.append([b"x" * 20])
        journal.rewind()
        assert shipped(journal) == [b"a" * 20, b"b" * 20]


def test_write_that_cannot_be_undone__stands_before_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really_write = os.write

    def write_half(fd: int, data: bytes) -> int:
        return really_write(fd, data[: len(data) // 2])

    def fail(_fd: int, _length: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tmp_path) as journal:
        journal.append([b"a" * 20])
        with monkeypatch.context() as failing:
            failing.setattr(os, "write", write_half)
            failing.setattr(os, "ftruncate", fail)
            with pytest.raises(JournalFull):
                journal.append([b"x" * 20])
        journal.append([b"b" * 20])
        assert shipped(journal) == [b"a" * 20, b"b" * 20]
        assert journal.skipped_bytes == 0


def test_file_whose_closing_fails__is_never_written_to_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk behind a network may say only then that it is full; the number of the file is free all the same."""
    really_close = os.close

    def fail(fd: int) -> None:
        really_close(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    clock = Clock()
    with opened(tmp_path, segment_s=10, now=clock) as journal:
        journal.append([b"a" * 20])
        clock.at_s += 11
        with monkeypatch.context() as failing:
            failing.setattr(os, "close", fail)
            with pytest.raises(OSError, match="Input/output error"):
                journal.collect()
        with (tmp_path / "of another").open("wb") as other:  # has the number now
            journal.append([b"b" * 20])
            assert os.fstat(other.fileno()).st_size == 0
        assert shipped(journal) == [b"a" * 20, b"b" * 20]


def python(program: str, folder: Path) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(folder)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


WRITER = """
    import sys
    from pathlib import Path
    from common.journal.journal import Journal
    journal = Journal(Path(sys.argv[1]), segment_bytes=20_000)
    journal.open()
    for number in range(10**9):
        journal.append([f"{number}".encode().ljust(50), b"second"])
        print(number, flush=True)
"""


def test_killed_writer__loses_nothing_that_append_returned_from(tmp_path: Path) -> None:
    writer = python(WRITER, tmp_path)
    assert writer.stdout is not None
    for _ in range(2000):
        last = writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    answered = int((last + writer.stdout.read()).split()[-1])
    writer.wait()
    writer.stdout.close()
    with opened(tmp_path) as journal:
        numbers = [int(payload) for payload in shipped(journal)[::2]]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) in (answered + 1, answered + 2)


LIMITED = """
    import resource, sys
    from pathlib import Path
    from common.journal.journal import Journal, JournalFull
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_100, 10_100))
    journal = Journal(Path(sys.argv[1]))
    journal.open()
    accepted = 0
    try:
        while True:
            journal.append([f"{accepted}".encode().ljust(300)])
            accepted += 1
    except JournalFull as error:
        print(error)
    try:
        journal.append([b"x" * 600])
    except JournalFull:
        pass
    journal.append([b"small"])
    print(accepted)
"""


def test_write_cut_short__is_refused_undone_and_survived(tmp_path: Path) -> None:
    writer = python(LIMITED, tmp_path)
    reason, accepted = writer.communicate()[0].split("\n")[:2]
    assert reason == "the disk is full"
    with opened(tmp_path) as journal:
        payloads = shipped(journal)
        assert [int(payload) for payload in payloads[:-1]] == list(range(int(accepted)))
        assert payloads[-1] == b"small"
        assert journal.skipped_bytes == 0

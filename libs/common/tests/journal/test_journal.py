"""The journal against a model, damage, a full disk and kill -9."""

import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from structlog.testing import capture_logs

from common.http.context import uuid7
from common.journal.file import PAGE_BYTES
from common.journal.journal import MAX_PAYLOAD_BYTES, Journal, JournalFull


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


def die(journal: Journal) -> None:
    """Release the locks without any clean-up, as the death of a process does."""
    for file in journal.files:
        file._db.close()


def files(root: Path) -> list[Path]:
    return sorted(root.glob("*.db"))


def damage(path: Path, marker: bytes) -> None:
    """Overwrite the page with `marker`. A separate process, because closing the file here would release its locks."""
    program = "import sys; f = open(sys.argv[1], 'r+b'); at = f.read().index(sys.argv[2].encode()) // 4096 * 4096"
    program += "; f.seek(at); f.write(bytes([255]) * 4096)"
    subprocess.run([sys.executable, "-c", program, str(path), marker.decode()], check=True)


def published(journal: Journal, max_bytes: int = 1 << 18) -> list[bytes]:
    """Take everything that is pending, like a stream that acknowledges at once."""
    payloads = []
    while (chunk := journal.next_chunk(max_bytes)) is not None:
        payloads += chunk.payloads
        journal.mark_published(chunk, len(chunk.ids))
    return payloads


class JournalModel(RuleBasedStateMachine):
    """Two journals on one root, one of which may die: everything appended is pending or published, in order."""

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.root = Path(tempfile.mkdtemp())
        self.journal = self.fresh()
        self.pending: list[bytes] = []
        self.kept: list[bytes] = []
        self.next = 0

    def fresh(self) -> Journal:
        journal = Journal(self.root, keep_s=100, now=self.clock)
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
    def publish_some(self, max_bytes: int, share: float) -> None:
        chunk = self.journal.next_chunk(max_bytes)
        if chunk is None:
            assert self.pending == []
            return
        assert chunk.payloads == self.pending[: len(chunk.payloads)] != []
        count = round(share * len(chunk.payloads))
        self.journal.mark_published(chunk, count)
        self.kept += self.pending[:count]
        del self.pending[:count]

    @rule(seconds=st.sampled_from([1, 11, 101]))
    def collect(self, seconds: int) -> None:
        self.journal.collect()
        self.clock.at_s += seconds
        self.journal.collect()

    @rule()
    def forget(self) -> None:
        """Events that are published again end with the pending ones, and hold nothing that was never appended."""
        self.journal.rewind()
        again = self.reread()
        assert again[len(again) - len(self.pending) :] == self.pending
        assert (self.kept + self.pending)[-len(again) :] == again or not again
        self.pending, self.kept = again, []

    @rule()
    def die_and_be_adopted(self) -> None:
        die(self.journal)
        self.journal = self.fresh()
        again = self.reread()
        assert again[len(again) - len(self.pending) :] == self.pending
        assert files(self.root) == sorted(file.path for file in self.journal.files)
        self.pending, self.kept = again, []

    def reread(self) -> list[bytes]:
        before = [(file, file.published_id) for file in self.journal.files]
        again = published(self.journal)
        for file, published_id in before:
            file.published_id = published_id
        return again

    @precondition(lambda self: hasattr(self, "journal"))
    @invariant()
    def sizes_follow_what_is_pending(self) -> None:
        assert self.journal.size_bytes >= self.journal.pending_bytes
        assert bool(self.journal.pending_bytes) == bool(self.pending)
        assert self.journal.skipped_bytes == 0


TestJournalModel = JournalModel.TestCase
TestJournalModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_batch__is_recorded_whole_or_not_at_all(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=1 << 16) as journal:
        journal.append([b"a" * 400])
        with pytest.raises(JournalFull):
            journal.append([b"b" * 30_000, b"c" * 30_000])
        assert published(journal) == [b"a" * 400]


def test_full_journal__deletes_published_events_first_then_refuses(tmp_path: Path) -> None:
    with opened(tmp_path, max_bytes=1 << 16) as journal:
        appended: list[bytes] = []
        with pytest.raises(JournalFull, match="full"):
            while True:
                journal.append([f"{len(appended)}".encode().ljust(500)])
                appended.append(f"{len(appended)}".encode().ljust(500))
        chunk = journal.next_chunk(1 << 13)
        assert chunk is not None
        journal.mark_published(chunk, len(chunk.ids))
        journal.append([b"y" * 500])
        assert published(journal) == [*appended[len(chunk.ids) :], b"y" * 500]
        assert journal.size_bytes <= 1 << 16


def test_size__is_that_of_the_pages_in_use(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append([b"x" * 500 for _ in range(1000)])
        assert 500_000 <= journal.size_bytes == journal.pending_bytes < 600_000
        chunk = journal.next_chunk(250_000)
        assert chunk is not None
        journal.mark_published(chunk, len(chunk.ids))
        assert journal.pending_bytes == pytest.approx(journal.size_bytes / 2, abs=PAGE_BYTES)


def test_published_events__are_kept_then_deleted(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, now=clock, keep_s=600) as journal:
        journal.append([b"a"])
        published(journal)
        journal.collect()
        clock.at_s += 61
        journal.append([b"b"])
        clock.at_s += 538
        journal.collect()
        journal.rewind()
        assert published(journal) == [b"a", b"b"]
        journal.collect()
        clock.at_s += 601
        journal.collect()
        journal.rewind()
        assert published(journal) == []
        assert journal.size_bytes == 0


def test_unpublished_events__are_never_deleted(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, now=clock) as journal:
        journal.append([b"a"])
        clock.at_s += 1e6
        journal.collect()
        assert published(journal) == [b"a"]


def test_chunk__is_bounded(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for _ in range(40):
            journal.append([b"x" * 100_000])
        chunk = journal.next_chunk()
        assert chunk is not None
        assert sum(map(len, chunk.payloads)) <= 1 << 18
        assert len(published(journal)) == 40


def test_longest_payloads__are_published_and_longer_ones_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        with pytest.raises(ValueError, match="at most"):
            journal.append([b"small", bytes(MAX_PAYLOAD_BYTES + 1)])
        longest = [bytes([i]) * MAX_PAYLOAD_BYTES for i in range(3)]
        journal.append([b"small", *longest, b"small"])
        assert published(journal) == [b"small", *longest, b"small"]


def test_large_backlog_of_a_dead_process__is_deleted_at_once(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path) as dead:
        dead.append([b"x" * 100 for _ in range(5000)])
    with opened(tmp_path, now=clock) as journal:
        assert len(published(journal)) == 5000
        journal.collect()
        clock.at_s += 601
        journal.collect()
        assert journal.size_bytes == 0
        assert len(files(tmp_path)) == 1


def test_large_journal_of_a_dead_process__is_adopted_without_reading_it(tmp_path: Path) -> None:
    """Adoption runs on the event loop. Reading 100 MB took 200 ms of CPU."""
    with opened(tmp_path) as dead:
        dead.append([b"x" * 1000 for _ in range(100_000)])
    started_s = time.process_time()
    with opened(tmp_path) as journal:
        assert time.process_time() - started_s < 0.05
        assert journal.pending_bytes > 100_000_000


def test_deleted_events__return_their_pages_to_the_disk(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path, now=clock) as journal:
        journal.append([b"x" * 3900 for _ in range(10_000)])
        published(journal)
        journal.collect()
        clock.at_s += 601
        peak_bytes = journal.files[0].path.stat().st_size
        for _ in range(200):
            journal.collect()
        assert journal.size_bytes == 0
        assert journal.files[0].path.stat().st_size < peak_bytes - (10 << 20)


def test_damaged_file_in_a_full_journal__is_set_aside_and_not_deleted(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(400):
            journal.append([f"<{number}>".encode().ljust(1000, b".")])
        damage(journal.files[0].path, b"<200>")
        die(journal)
    with opened(tmp_path, max_bytes=900_000) as journal:
        chunk = journal.next_chunk(100_000)
        assert chunk is not None
        journal.mark_published(chunk, len(chunk.ids))
        for _ in range(700):
            with suppress(JournalFull):
                journal.append([b"y" * 1000])
        published(journal)
    [aside] = tmp_path.glob("*.damaged")
    assert b"<399>" in aside.read_bytes()


def test_damaged_page__sets_the_file_aside_and_the_rest_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(100):
            journal.append([f"<{number}>".encode().ljust(1000, b".")])
        damage(journal.files[0].path, b"<50>")
        die(journal)
    with opened(tmp_path) as journal:
        payloads = [int(payload[1:].split(b">")[0]) for payload in published(journal)]
        assert payloads == list(range(len(payloads)))
        assert 0 < 100 - len(payloads) <= 60
        assert journal.skipped_bytes > 0
        journal.append([b"new"])
        assert published(journal) == [b"new"]
    [aside] = tmp_path.glob("*.damaged")
    assert b"<99>" in aside.read_bytes()


def test_file_that_is_no_database__is_set_aside_and_the_start_goes_on(tmp_path: Path) -> None:
    (tmp_path / f"{uuid7()}.db").write_bytes(b"not a database" * 1000)
    with capture_logs() as logs, opened(tmp_path) as journal:
        journal.append([b"a"])
        journal.adopt_orphans()
        assert published(journal) == [b"a"]
        assert journal.skipped_bytes == 14_000
    assert [line["event"] for line in logs] == ["journal file damaged; set aside"]
    assert len(list(tmp_path.glob("*.damaged"))) == 1


@pytest.mark.parametrize("removed", ["its content", "the folder"])
def test_journal_folder_that_was_removed__is_created_again(tmp_path: Path, removed: str) -> None:
    root = tmp_path / "journal"
    with opened(root) as journal:
        journal.append([b"a" * 20])
        shutil.rmtree(root)
        if removed == "its content":
            root.mkdir()
        journal.append([b"b" * 20])
        assert len(files(root)) == 1
        assert published(journal) == [b"a" * 20, b"b" * 20]  # the removed file is still open
        with opened(root) as other:
            assert published(other) == []  # the new file is locked


def test_file_in_place_of_the_folder__is_refused_until_it_is_removed(tmp_path: Path) -> None:
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
        assert published(journal) == [b"a" * 20, b"c" * 20]


def test_own_file_that_was_removed__is_created_again_before_others_are_adopted(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        [own] = files(tmp_path)
        own.unlink()
        with opened(tmp_path) as dead:
            dead.append([b"left"])
        assert journal.adopt_orphans() == 1
        assert published(journal) == [b"left"]


def test_orphan_that_cannot_be_opened__is_logged_once_and_tried_again(tmp_path: Path) -> None:
    with opened(tmp_path) as dead:
        dead.append([b"left"])
    [orphan] = files(tmp_path)
    complete = orphan.rename(tmp_path / "complete")
    orphan.mkdir()
    with capture_logs() as logs, opened(tmp_path) as journal:
        assert journal.adopt_orphans() == 0
        orphan.rmdir()
        complete.rename(orphan)
        assert journal.adopt_orphans() == 1
        assert published(journal) == [b"left"]
    assert [line["event"] for line in logs] == ["journal of a dead process cannot be adopted"]


def test_closed_journal__refuses(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        pass
    with pytest.raises(JournalFull, match="not open"):
        journal.append([b"a"])
    assert list(tmp_path.iterdir()) == []


def test_other_files_and_folders__are_never_touched(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "notes.db").touch()
    with opened(tmp_path):
        assert (tmp_path / "photos").is_dir()
        assert list((tmp_path / "photos").iterdir()) == []


def test_journal_of_an_earlier_release__is_reported_and_left(tmp_path: Path) -> None:
    segment = tmp_path / str(uuid7()) / "0.seg"
    segment.parent.mkdir()
    segment.write_bytes(b"events")
    with capture_logs() as logs, opened(tmp_path):
        pass
    assert [(line["log_level"], line["paths"]) for line in logs] == [("error", [str(segment.parent)])]
    assert segment.read_bytes() == b"events"


def test_living_process__keeps_its_file(tmp_path: Path) -> None:
    with opened(tmp_path) as first, opened(tmp_path) as second:
        first.append([b"mine"])
        assert (first.adopt_orphans(), second.adopt_orphans()) == (0, 0)
        assert published(second) == []
        assert published(first) == [b"mine"]


def test_closed_journal__leaves_pending_events_to_the_next_process(tmp_path: Path) -> None:
    with opened(tmp_path) as first:
        first.append([b"left"])
    with opened(tmp_path) as second:
        second.append([b"new"])
        assert published(second) == [b"left", b"new"]
        assert len(files(tmp_path)) == 2


def test_adopted_file__is_kept_then_removed(tmp_path: Path) -> None:
    clock = Clock()
    with opened(tmp_path) as first:
        first.append([b"left"])
    with opened(tmp_path, now=clock) as second:
        assert published(second) == [b"left"]
        second.rewind()
        assert published(second) == [b"left"]
        second.collect()
        clock.at_s += 601
        second.collect()
        assert (len(second.files), second.size_bytes) == (1, 0)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_and_adopt_together__lose_nothing(tmp_path: Path) -> None:
    """A file that is created but not locked yet looks like an orphan."""

    def life(number: int) -> list[bytes]:
        journal = Journal(tmp_path)
        journal.open()
        journal.append([f"{number}".encode()])
        journal.adopt_orphans()
        payloads = published(journal) if number % 2 else []
        journal.close()
        return payloads

    with ThreadPoolExecutor(8) as pool:
        taken = [payload for payloads in pool.map(life, range(200)) for payload in payloads]
    with opened(tmp_path) as last:
        taken += published(last)
    assert set(taken) == {f"{number}".encode() for number in range(200)}


def python(program: str, folder: Path) -> "subprocess.Popen[str]":
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(folder)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


WRITER = """
    import sys
    from pathlib import Path
    from common.journal.journal import Journal
    journal = Journal(Path(sys.argv[1]))
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
        numbers = [int(payload) for payload in published(journal)[::2]]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) in (answered + 1, answered + 2)


LIMITED = """
    import resource, sys
    from pathlib import Path
    from common.journal.journal import Journal, JournalFull
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_100, 500_100))
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
    assert reason == "the journal cannot be written: disk I/O error"
    with opened(tmp_path) as journal:
        payloads = published(journal)
        assert [int(payload) for payload in payloads[:-1]] == list(range(int(accepted)))
        assert payloads[-1] == b"small"
        assert journal.skipped_bytes == 0


def test_full_disk__refuses_until_published_events_make_room(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append([b"x" * 1000])
        journal.files[0]._db.execute("PRAGMA max_page_count = 500")
        with pytest.raises(JournalFull, match="the disk is full"):
            while True:
                journal.append([b"x" * 1000])
        chunk = journal.next_chunk(200_000)
        assert chunk is not None
        journal.mark_published(chunk, len(chunk.ids))
        for _ in range(100):
            journal.append([b"y" * 1000])


@pytest.mark.parametrize("size_bytes", [100, 1000, 20_000])
def test_deleting_events__needs_no_disk_space(tmp_path: Path, size_bytes: int) -> None:
    clock = Clock()
    with opened(tmp_path, now=clock) as journal:
        journal.append([b"x" * size_bytes for _ in range(500)])
        published(journal)
        journal.collect()
        clock.at_s += 601
        before = {path: path.stat().st_size for path in tmp_path.iterdir()}
        while journal.size_bytes:
            journal.collect()
        assert len(before) == 2  # the database and its rollback journal
        assert all(path.stat().st_size <= size for path, size in before.items())

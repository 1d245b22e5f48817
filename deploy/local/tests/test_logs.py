"""Lines on a terminal, elsewhere, and in files of bounded size."""

import io
import json
import os
import pty
import select
import shutil
from contextlib import suppress
from pathlib import Path

from launcher.follow import Tail, show
from launcher.logs import Console, LogFile, lines, rotated

CTRL_S, CTRL_Q = b"\x13", b"\x11"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Chunks:
    def __init__(self, *chunks: bytes) -> None:
        self._chunks = [*chunks, b""]

    async def read(self, n: int = -1) -> bytes:
        return self._chunks.pop(0)


def test_terminal__gets_a_coloured_prefix_of_its_own_per_service() -> None:
    out = Terminal()
    console = Console(out)
    console.line("edge", "hello")
    console.line("metrics", "hello")
    first, second = out.getvalue().splitlines()
    assert first == "\033[36medge         |\033[0m hello"
    assert second.startswith("\033[32mmetrics")


def test_elsewhere__json_lines_pass_and_others_are_wrapped() -> None:
    out = io.StringIO()
    console = Console(out)
    console.line("edge", '{"event": "served"}')
    console.line("edge", "Traceback (most recent call last):")
    console.say("ready", url="http://127.0.0.1:8000")
    passed, wrapped, said = map(json.loads, out.getvalue().splitlines())
    assert passed == {"event": "served"}
    assert (wrapped["service"], wrapped["event"]) == ("edge", "Traceback (most recent call last):")
    assert (said["service"], said["event"], said["url"]) == ("launcher", "ready", "http://127.0.0.1:8000")


async def test_lines__are_cut_across_chunks_and_the_last_needs_no_end() -> None:
    source = Chunks(b"on", b"e\ntwo\r\n\nthr", "ée".encode())
    assert [line async for line in lines(source)] == ["one", "two", "", "thrée"]


async def test_line_without_end__comes_in_pieces_of_bounded_size() -> None:
    source = Chunks(*[b"x" * 65_536] * 20)
    assert max([len(line) async for line in lines(source)]) <= 400_000


def test_log_file__past_its_limit_begins_anew_and_keeps_one_before(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "edge.log", max_bytes=100)
    for number in range(100):
        log.write(f"line {number}")
    log.close()
    kept = (tmp_path / "edge.log", rotated(tmp_path / "edge.log"))
    assert all(path.stat().st_size < 120 for path in kept)
    assert kept[0].read_text().splitlines()[-1] == "line 99"


def test_log_file_on_a_full_disk__loses_lines_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "edge.log").symlink_to("/dev/full")
    log = LogFile(tmp_path / "edge.log")
    log.write("lost")
    log.close()


def test_log_file_whose_folder_is_gone__loses_lines_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "edge.log"
    log = LogFile(path, max_bytes=10)
    log.write("a line that is long")
    shutil.rmtree(path.parent)
    log.write("lost")
    path.parent.mkdir()
    log.write("kept")
    log.close()
    assert path.read_text() == "kept\n"


def test_terminal_that_takes_nothing__does_not_matter() -> None:
    out = open("/dev/full", "w")
    Console(out).line("edge", "lost")
    with suppress(OSError):
        out.close()


def test_terminal_of_another_encoding__gets_what_it_can_show(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        Console(out).plain("caf\u00e9")
    assert (tmp_path / "out").read_text() == "caf\\xe9\n"


def test_terminal_that_stands_still__holds_nobody_up_and_hears_what_it_missed() -> None:
    keyboard, screen = pty.openpty()
    with open(screen, "w") as out, open(keyboard, "rb", buffering=0) as seen:
        console = Console(out, skips=True)
        os.write(keyboard, CTRL_S)
        while select.select([], [out], [], 0)[1]:
            pass
        for _ in range(10_000):
            console.line("edge", "a line of some service")
        os.write(keyboard, CTRL_Q)
        while not select.select([], [out], [], 0)[1]:
            pass
        console.line("edge", "seen again")
        shown = ""
        while "seen again" not in shown:
            shown += seen.read(1 << 16).decode()
    assert "lines=10000" in shown


def test_show__prints_the_last_lines_of_each(tmp_path: Path) -> None:
    (tmp_path / "edge.log").write_text("one\ntwo\nthree\n")
    out = Terminal()
    show([tmp_path / "edge.log", tmp_path / "missing.log"], Console(out), last=2, follows=False)
    assert [line.rpartition(" ")[2] for line in out.getvalue().splitlines()] == ["two", "three"]


def test_tail__gives_what_is_new_waits_for_whole_lines_and_follows_rotation(tmp_path: Path) -> None:
    path = tmp_path / "edge.log"
    tail = Tail(path)
    assert list(tail.new_lines()) == []
    path.write_text("one\ntw")
    assert list(tail.new_lines()) == ["one"]
    path.write_text("one\ntwo\n")
    assert list(tail.new_lines()) == ["two"]
    path.replace(rotated(path))
    path.write_text("three\n")
    assert list(tail.new_lines()) == ["three"]

"""Lines on a terminal, in pipes, and in files of bounded size."""

import asyncio
import io
import json
import os
import pty
import select
import shutil
from contextlib import suppress
from pathlib import Path

from launcher.logs import Console, LogFile, Tail, as_json, lines, normalized

CTRL_S, CTRL_Q = b"\x13", b"\x11"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal__shows_formatted_lines_with_a_coloured_prefix() -> None:
    out = Terminal()
    console = Console(out)
    console.line('{"timestamp": "2026-12-03T05:01:02Z", "level": "info", "service": "edge", "event": "served", "n": 1}')
    console.line(
        '{"timestamp": "2026-12-03T05:01:03Z", "level": "error", "service": "metrics", "event": "failed", '
        '"exception": "Traceback:\\n  ValueError"}'
    )
    first, second, *trace = out.getvalue().splitlines()
    assert first == "05:01:02 \033[36medge         |\033[0m served n=1"
    assert second == "05:01:03 \033[32mmetrics      |\033[0m ERROR failed"
    assert trace == ["Traceback:", "  ValueError"]


def test_pipe__gets_json() -> None:
    out = io.StringIO()
    console = Console(out)
    console.line('{"event": "served"}')
    console.say("ready", url="http://127.0.0.1:8000")
    passed, said = map(json.loads, out.getvalue().splitlines())
    assert passed == {"event": "served"}
    assert (said["service"], said["event"], said["url"]) == ("launcher", "ready", "http://127.0.0.1:8000")


def test_quiet_console__hides_info_lines_of_services() -> None:
    out = io.StringIO()
    console = Console(out, is_quiet=True)
    for level in ("debug", "info", "warning", "error"):
        console.line(as_json("edge", level, level))
    console.say("ready")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["warning", "error", "ready"]


def test_normalized__wraps_lines_that_are_not_json_objects() -> None:
    assert normalized("edge", '{"event": "served"}') == '{"event": "served"}'
    for line in ("Traceback (most recent call last):", "1", '{"event": "cut'):
        wrapped = json.loads(normalized("edge", line))
        assert (wrapped["service"], wrapped["level"], wrapped["event"]) == ("edge", "warning", line)


async def test_lines__that_are_too_long__are_dropped() -> None:
    source = asyncio.StreamReader(limit=10)
    source.feed_data("one\ntwo\r\n\nthrée".encode() + b"\n" + b"x" * 100 + b"\nlast")
    source.feed_eof()
    assert [line async for line in lines(source)] == ["one", "two", "", "thrée", "last"]


def test_log_file__is_rotated_at_its_limit(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "edge.log", max_bytes=100)
    for number in range(100):
        log.write(f"line {number}")
    log.close()
    kept = (tmp_path / "edge.log", tmp_path / "edge.log.1")
    assert all(path.stat().st_size < 120 for path in kept)
    assert kept[0].read_text().splitlines()[-1] == "line 99"


def test_log_file__without_its_folder__drops_lines_until_it_exists(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "edge.log"
    log = LogFile(path, max_bytes=10)
    log.write("a line that is long")
    shutil.rmtree(path.parent)
    log.write("lost")
    path.parent.mkdir()
    log.write("kept")
    log.close()
    assert "kept\n" in path.read_text()


def test_full_disk__does_not_stop_the_console() -> None:
    out = open("/dev/full", "w")
    Console(out).say("lost")
    with suppress(OSError):
        out.close()


def test_terminal__of_another_encoding__gets_escapes(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        Console(out).plain("caf\u00e9")
    assert (tmp_path / "out").read_text() == "caf\\xe9\n"


def test_stalled_terminal__does_not_block_and_counts_dropped_lines() -> None:
    keyboard, screen = pty.openpty()
    with open(screen, "w") as out, open(keyboard, "rb", buffering=0) as seen:
        console = Console(out, never_blocks=True)
        os.write(keyboard, CTRL_S)
        while select.select([], [out], [], 0)[1]:
            pass
        for _ in range(10_000):
            console.say("an event")
        os.write(keyboard, CTRL_Q)
        while not select.select([], [out], [], 0)[1]:
            pass
        console.say("seen again")
        shown = ""
        while "seen again" not in shown:
            shown += seen.read(1 << 16).decode()
    assert "lines=10000" in shown


def test_tail__yields_new_complete_lines_and_follows_rotation(tmp_path: Path) -> None:
    path = tmp_path / "edge.log"
    tail = Tail(path)
    assert list(tail.new_lines()) == []
    path.write_text("one\ntw")
    assert list(tail.new_lines()) == ["one"]
    path.write_text("one\ntwo\n")
    assert list(tail.new_lines()) == ["two"]
    path.replace(path.with_name("edge.log.1"))
    path.write_text("three\n")
    assert list(tail.new_lines()) == ["three"]

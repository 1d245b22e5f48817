"""Every line of a process is one JSON object with its service, request and trace; it never holds local variables."""

import errno
import io
import json
import logging
import os
import select
import time
from typing import Any

import pytest
import structlog

from common.runtime import logs

SECRET = "hunter2-wrong"


pytestmark = pytest.mark.usefixtures("own_logs")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(level: str = "info", log_format: logs.LogFormat = "json") -> io.StringIO:
    stream = io.StringIO()
    logs.configure("probe", level=level, log_format=log_format, stream=stream)
    return stream


def fail() -> None:
    user_text = SECRET  # a local that a careless traceback would show
    assert user_text
    raise ValueError("broken")


def test_line__carries_service_level_time_and_what_is_bound() -> None:
    stream = configured()
    with structlog.contextvars.bound_contextvars(request_id="r-1", trace_id="t-1"):
        structlog.get_logger().info("hello", n=1)
        logging.getLogger("some.library").warning("it said %s", "this")
    ours, theirs = lines(stream)
    assert ours.items() >= {"event": "hello", "n": 1, "level": "info", "service": "probe", "request_id": "r-1"}.items()
    assert theirs.items() >= {"event": "it said this", "level": "warning", "service": "probe"}.items()
    assert theirs["trace_id"] == "t-1"
    assert ours["timestamp"].endswith("Z")


def test_flood_of_one_event__is_a_hundred_lines_a_second_and_leaves_others_alone() -> None:
    stream = configured()
    log = structlog.get_logger()
    for _ in range(5 * logs.LINES_A_SECOND):
        log.info("refused")
    log.warning("another")
    events = [line["event"] for line in lines(stream)]
    assert logs.LINES_A_SECOND <= events.count("refused") <= 2 * logs.LINES_A_SECOND  # it may take two seconds
    assert events[-1] == "another"


def test_first_line_after_a_flood__says_how_many_were_left_out() -> None:
    now_s = 10.0
    limit = logs.rate_limited(3, lambda: now_s)

    def write(method: str = "info") -> Any:
        try:
            return limit(None, method, {"event": "refused"})
        except structlog.DropEvent:
            return None

    assert [write() is not None for _ in range(5)] == [True, True, True, False, False]
    assert write("debug") is not None
    now_s += 1.0
    assert write() == {"event": "refused", "left_out": 2}
    now_s += 1.0
    assert write() == {"event": "refused"}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_exception__shows_no_local_variables(log_format: logs.LogFormat) -> None:
    stream = configured(log_format=log_format)
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("library").exception("failed")
    assert SECRET not in stream.getvalue()
    assert stream.getvalue().count("broken") >= 2


def test_exception__is_one_line_of_json() -> None:
    stream = configured()
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed", text="two\nlines")
    (line,) = lines(stream)
    assert line["exception"][0]["exc_type"] == "ValueError"


@pytest.mark.parametrize(
    ("level", "said"),
    [("debug", ["ours d", "ours i", "theirs i", "ours w"]), ("info", ["ours i", "theirs i", "ours w"])],
)
def test_level__is_ours_and_libraries_never_debug(level: str, said: list[str]) -> None:
    stream = configured(level)
    log, library = structlog.get_logger("named"), logging.getLogger("library")
    log.debug("ours d")
    library.debug("theirs d")
    log.info("ours i")
    library.info("theirs i")
    log.warning("ours w")
    assert [line["event"] for line in lines(stream)] == said


def test_level_error__silences_libraries_too() -> None:
    stream = configured("error")
    logging.getLogger("library").warning("theirs")
    structlog.get_logger().warning("ours")
    structlog.get_logger().error("bad")
    assert [line["event"] for line in lines(stream)] == ["bad"]


def test_pipe_that_nobody_reads__holds_up_nobody_and_what_was_left_out_is_told() -> None:
    out, into = os.pipe()
    with open(out, "rb", buffering=0) as read, open(into, "w") as stream:
        logs.configure("probe", log_format="json", stream=stream)
        log = structlog.get_logger()
        for number in range(1_000):
            log.info(str(number), text="é" * 100)  # seven times what a pipe holds
        log.info("long", text="x" * 100_000)
        log.info("no room")
        taken = read.read(1 << 20)
        log.info("read again")
        taken += read.read(1 << 20)
    *told, left_out, last = [line for line in taken.splitlines() if line.endswith(b"}")]
    written = len(told)
    assert [json.loads(line)["event"] for line in told] == [str(number) for number in range(written)]
    assert json.loads(left_out)["event"] == "log lines were left out while nobody read"
    assert json.loads(left_out)["lines"] == 1_002 - written
    assert json.loads(last)["event"] == "read again"


def test_reader_that_is_slow__is_told_once_a_second_of_all_that_it_missed() -> None:
    out, into = os.pipe()
    with open(out, "rb", buffering=0) as read, open(into, "w") as stream:
        logs.configure("probe", log_format="json", stream=stream)
        log, taken, begun_s = structlog.get_logger(), b"", time.monotonic()
        for number in range(1_000):
            log.info(str(number), text="x" * 3_000)
            if number % 4 == 0:
                taken += read.read(select.PIPE_BUF)
        taken += read.read(1 << 20)
        took_s = time.monotonic() - begun_s
    [handler] = logging.getLogger().handlers
    assert isinstance(handler, logs._NonBlockingHandler)
    told = [json.loads(line) for line in taken.splitlines()]
    missed = [line["lines"] for line in told if "lines" in line]
    assert 1 <= len(missed) <= 1 + took_s
    assert len(told) - len(missed) + sum(missed) + handler._left_out == 1_000


def test_long_line_that_a_full_pipe_cuts__spoils_none_after_it() -> None:
    out, into = os.pipe()
    with open(out, "rb", buffering=0) as read, open(into, "w") as stream:
        logs.configure("probe", log_format="json", stream=stream)
        structlog.get_logger().info("long", text="x" * 1_000_000)
        cut = read.read(1 << 20)
        structlog.get_logger().info("short")
        structlog.get_logger().info("shorter")
        after = read.read(1 << 20)
    assert cut.count(b"\n") == 0
    assert [json.loads(line)["event"] for line in after.split(b"\n") if line] == [
        "log lines were left out while nobody read",
        "short",
        "shorter",
    ]


def test_line_that_a_full_disk_cuts__spoils_none_after_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Disk(io.StringIO):
        pieces = 1

        def write(self, text: str) -> int:
            self.pieces -= 1
            if self.pieces < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    disk = Disk()
    logs.configure("probe", log_format="json", stream=disk)
    log = structlog.get_logger()
    log.info("long", text="x" * 10_000)
    log.info("no room")
    disk.pieces = 100
    log.info("room again")
    log.info("and again")
    assert [json.loads(line)["event"] for line in disk.getvalue().splitlines()[1:]] == ["room again", "and again"]
    assert "No space left" in capsys.readouterr().err


@pytest.mark.parametrize(("log_format", "text"), [("json", "x" * 3_500), ("json", "é" * 500), ("console", "é" * 3_500)])
def test_line_that_a_pipe_takes_whole__is_given_whole_and_none_is_more_than_it_takes(
    log_format: logs.LogFormat, text: str
) -> None:
    sizes: list[int] = []

    class Pieces(io.StringIO):
        def write(self, text: str) -> int:
            sizes.append(len(text.encode()))
            return super().write(text)

    logs.configure("probe", log_format=log_format, stream=Pieces())
    structlog.get_logger().info("long", text=text)
    assert max(sizes) <= select.PIPE_BUF
    assert len(sizes) == 1 or sum(sizes) > select.PIPE_BUF


def test_console_away_from_a_terminal__has_no_colours() -> None:
    stream = configured(log_format="console")
    structlog.get_logger().info("hello", n=1)
    assert "hello" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_auto_away_from_a_terminal__is_json() -> None:
    stream = configured(log_format="auto")
    structlog.get_logger().info("hello")
    assert lines(stream)[0]["event"] == "hello"


def test_odd_values__never_break_a_line() -> None:
    stream = configured()
    structlog.get_logger().info("odd", path=object(), text="\ud800 \x00 \n", number=float("nan"))
    assert len(stream.getvalue().splitlines()) == 1

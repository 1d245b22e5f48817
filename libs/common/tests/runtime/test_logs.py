"""Log lines: format, context, limits, and a reader that stalls."""

import io
import json
import logging
import os
import subprocess
import sys
from threading import Thread
from typing import Any

import pytest
import structlog

from common.runtime import logs

SECRET = "hunter2-wrong"


pytestmark = pytest.mark.usefixtures("own_logs")


def written(stream: io.StringIO) -> str:
    logs.flush(60)
    return stream.getvalue()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written(stream).splitlines()]


def configured(level: str = "info", log_format: logs.LogFormat = "json") -> io.StringIO:
    stream = io.StringIO()
    logs.configure("probe", level=level, log_format=log_format, stream=stream)
    return stream


def fail() -> None:
    user_text = SECRET  # a traceback with local variables would show it
    assert user_text
    raise ValueError("broken")


def test_line__has_service_level_time_and_bound_context() -> None:
    stream = configured()
    with structlog.contextvars.bound_contextvars(request_id="r-1", trace_id="t-1"):
        structlog.get_logger().info("hello", n=1)
        logging.getLogger("some.library").warning("it logged %s", "this")
    own, library = lines(stream)
    assert own.items() >= {"event": "hello", "n": 1, "level": "info", "service": "probe", "request_id": "r-1"}.items()
    assert library.items() >= {"event": "it logged this", "level": "warning", "service": "probe"}.items()
    assert library["trace_id"] == "t-1"
    assert own["timestamp"].endswith("Z")


def test_flood_of_one_event__is_limited_and_other_events_are_not() -> None:
    stream = configured()
    log = structlog.get_logger()
    for _ in range(5 * logs.MAX_LINES_PER_S):
        log.info("refused")
    log.warning("another")
    events = [line["event"] for line in lines(stream)]
    assert logs.MAX_LINES_PER_S <= events.count("refused") <= 2 * logs.MAX_LINES_PER_S  # the loop may span two seconds
    assert events[-1] == "another"


def test_first_line_after_a_flood__counts_dropped_lines() -> None:
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
    assert write() == {"event": "refused", "dropped": 2}
    now_s += 1.0
    assert write() == {"event": "refused"}


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_exception__has_no_local_variables(log_format: logs.LogFormat) -> None:
    stream = configured(log_format=log_format)
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("library").exception("failed")
    assert SECRET not in written(stream)
    assert written(stream).count("broken") >= 2


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["own d", "own i", "library i", "own w"]), ("info", ["own i", "library i", "own w"]), ("error", [])],
)
def test_level__debug_applies_to_our_events_only(level: str, expected: list[str]) -> None:
    stream = configured(level)
    log, library = structlog.get_logger("named"), logging.getLogger("library")
    log.debug("own d")
    library.debug("library d")
    log.info("own i")
    library.info("library i")
    log.warning("own w")
    assert [line["event"] for line in lines(stream)] == expected


def test_stalled_reader__does_not_block_and_dropped_lines_are_counted() -> None:
    total, received = 5 * logs.MAX_QUEUED_LINES, list[str]()
    read_fd, write_fd = os.pipe()
    with open(read_fd) as reader:
        with open(write_fd, "w") as stream:
            logs.configure("probe", log_format="json", stream=stream)
            log = structlog.get_logger()
            for number in range(total):
                log.info(str(number), text="x" * 1_000)
            reading = Thread(target=lambda: received.extend(reader))
            reading.start()
            logs.flush(60)
            log.info("last")
            logs.flush(60)
        reading.join(60)
    *numbered, last, dropped = [json.loads(line) for line in received]
    numbers = [int(line["event"]) for line in numbered]
    assert numbers == sorted(set(numbers)) and len(numbers) >= logs.MAX_QUEUED_LINES
    assert (last["event"], dropped["event"]) == ("last", "log lines dropped")
    assert dropped["lines"] == total - len(numbered) > 0


def test_lines_at_exit__are_written() -> None:
    program = "from common.runtime import logs; import structlog; logs.configure('probe', log_format='json')\n"
    program += "for number in range(500): structlog.get_logger().info(str(number))\nraise SystemExit(3)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 3
    assert [json.loads(line)["event"] for line in ended.stdout.splitlines()] == [str(number) for number in range(500)]


def test_console_format__without_a_terminal_has_no_colours() -> None:
    stream = configured(log_format="console")
    structlog.get_logger().info("hello", n=1)
    assert "hello" in written(stream)
    assert "\x1b" not in written(stream)


def test_unusual_values__stay_on_one_line() -> None:
    stream = configured()
    structlog.get_logger().info("odd", path=object(), text="\ud800 \x00 \n", number=float("nan"))
    assert len(written(stream).splitlines()) == 1

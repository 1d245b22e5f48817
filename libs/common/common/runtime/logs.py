"""Log set-up: structlog events as JSON lines, or a console when a person watches; never user text, never secrets."""

import logging
import math
import select
import sys
import time
from collections.abc import Callable
from typing import Final, Literal, TextIO

import structlog

LogFormat = Literal["auto", "console", "json"]

LINES_A_SECOND: Final = 100

_OURS: Final = "sluice"
_AT_ONCE: Final = select.PIPE_BUF  # bytes that a pipe takes whole, without those of another process among them
_LOGGER: Final = logging.getLogger(_OURS)


def configure(
    service: str, *, level: str = "info", log_format: LogFormat = "auto", stream: TextIO | None = None
) -> None:
    """Send every log line of this process, ours and the libraries', to `stream` (stdout) in one format.

    `level` is for ours; libraries speak from `info` up. Context bound with `structlog.contextvars` (request id,
    trace id) appears in every line written under it. Local variables never do: they hold user text. Of one event
    at most LINES_A_SECOND are written: neither a flood of bad requests nor a store that is away fills a disk.
    """
    out = stream or sys.stdout
    console = log_format == "console" or (log_format == "auto" and out.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _service_name(service),
    ]
    structlog.configure(
        processors=[rate_limited(LINES_A_SECOND), *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_names: _LOGGER,
        cache_logger_on_first_use=False,
    )
    handler = _NonBlockingHandler(out)
    handler.setFormatter(_formatter(console, out.isatty(), shared))
    _LOGGER.setLevel(threshold)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.INFO))
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a client's bad bytes are not our error


class _NonBlockingHandler(logging.StreamHandler[TextIO]):
    """Never waits for who reads: a collector that stands still would, with the pipe before it full, hold up the event
    loop and with it the service. Lines that find no room are left out, and counted in a line once there is some; in
    one a second, or a slow reader would be sent little else.
    """

    _left_out = 0
    _told_s = -math.inf
    _is_cut = False

    def emit(self, record: logging.LogRecord) -> None:
        try:
            now_s = time.monotonic()
            if self._left_out and now_s - self._told_s >= 1.0 and _takes(self.stream):
                left_out, self._left_out, self._told_s = self._left_out, 0, now_s
                structlog.get_logger().warning("log lines were left out while nobody read", lines=left_out)
            self._write(self.format(record) + self.terminator)
        except Exception:
            self.handleError(record)

    def _write(self, line: str) -> None:
        text = self.terminator + line if self._is_cut else line
        piece = _AT_ONCE if text.isascii() else _AT_ONCE // 4  # UTF-8 has no longer ones
        for start in range(0, len(text), piece):
            if not _takes(self.stream):
                self._left_out += 1
                return
            self._is_cut = True  # a disk may be full, and this be written once it is not
            self.stream.write(text[start : start + piece])
            self.stream.flush()
        self._is_cut = False


def is_verbose() -> bool:
    """Whether what is fine gets a line, too: asked before one is put together for each request."""
    return _LOGGER.isEnabledFor(logging.DEBUG)


def rate_limited(lines_a_second: int, now: Callable[[], float] = time.monotonic) -> structlog.typing.Processor:
    """Leaves out what is more of one event, and says in its next line how many those were. Debugging is not rationed.

    An event is a constant of the code, so what is remembered of each is bounded.
    """
    begun_s: dict[str, float] = {}
    written: dict[str, int] = {}

    def limit(_logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if method == "debug":
            return event
        name, now_s = event["event"], now()
        if now_s - begun_s.get(name, -1.0) >= 1.0:
            left_out = written.get(name, 0) - lines_a_second
            written[name], begun_s[name] = 1, now_s  # in this order: another thread counts what has begun
            if left_out > 0:
                event["left_out"] = left_out
            return event
        written[name] += 1
        if written[name] > lines_a_second:
            raise structlog.DropEvent
        return event

    return limit


def _takes(stream: TextIO) -> bool:
    """Whether it can be written to without waiting."""
    try:
        waiting = select.poll()
        waiting.register(stream, select.POLLOUT)
    except OSError:  # no file: it is in memory
        return True
    return bool(waiting.poll(0))


def _service_name(service: str) -> structlog.typing.Processor:
    def add(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    return add


def _formatter(
    console: bool, colors: bool, shared: list[structlog.typing.Processor]
) -> structlog.stdlib.ProcessorFormatter:
    renderers: list[structlog.typing.Processor]
    if console:
        plain = structlog.dev.plain_traceback
        renderers = [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)]
    else:
        traceback = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderers = [structlog.processors.ExceptionRenderer(traceback), structlog.processors.JSONRenderer()]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderers],
    )

"""Logging: structlog events and library records as JSON lines, or as a console format in a terminal.

Lines are formatted where they are logged and written by a thread, so that a reader that stalls does not hold up the
event loop.
"""

import atexit
import logging
import queue
import sys
import time
from collections.abc import Callable
from logging.handlers import QueueHandler, QueueListener
from typing import Final, Literal, TextIO

import structlog

LogFormat = Literal["auto", "console", "json"]

MAX_LINES_PER_S: Final = 100
MAX_QUEUED_LINES: Final = 1_000

_EXIT_FLUSH_S: Final = 1.0
_LOGGER: Final = logging.getLogger("sluice")


def configure(
    service: str, *, level: str = "info", log_format: LogFormat = "auto", stream: TextIO | None = None
) -> None:
    """Send every log line of this process to `stream` (stdout by default) in one format.

    Library records are logged from `info` up. Context bound with `structlog.contextvars` (request id, trace id)
    appears in every line. Tracebacks never include local variables, which hold user text. At most MAX_LINES_PER_S
    lines of one event are written, so neither a flood of bad requests nor a store that is down fills a disk.
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
        processors=[rate_limited(MAX_LINES_PER_S), *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_names: _LOGGER,
        cache_logger_on_first_use=False,
    )
    handler = _BoundedQueueHandler(out)
    handler.setFormatter(_formatter(console, out.isatty(), shared))
    _LOGGER.setLevel(threshold)
    root = logging.getLogger()
    flush()
    root.handlers[:] = [handler]
    root.setLevel(max(threshold, logging.INFO))
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # malformed requests are not errors of ours


def flush(timeout_s: float = _EXIT_FLUSH_S) -> None:
    """Wait until all queued lines are written, for at most `timeout_s`. Runs at exit, too."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _BoundedQueueHandler):
            handler.wait_until_written(timeout_s)


atexit.register(flush)


class _BoundedQueueHandler(QueueHandler):
    """Queues formatted lines for a thread that writes them; drops and counts lines while the queue is full."""

    queue: "queue.Queue[logging.LogRecord]"

    def __init__(self, stream: TextIO) -> None:
        super().__init__(queue.Queue(MAX_QUEUED_LINES))
        self.dropped = 0
        QueueListener(self.queue, logging.StreamHandler(stream)).start()

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            return
        if self.dropped and self.queue.qsize() <= MAX_QUEUED_LINES // 2:
            dropped, self.dropped = self.dropped, 0
            structlog.get_logger().warning("log lines dropped", lines=dropped)

    def wait_until_written(self, timeout_s: float) -> None:
        with self.queue.all_tasks_done:
            self.queue.all_tasks_done.wait_for(lambda: not self.queue.unfinished_tasks, timeout_s)


def is_verbose() -> bool:
    """Whether successful requests are logged. Checked before a line is composed."""
    return _LOGGER.isEnabledFor(logging.DEBUG)


def rate_limited(lines_per_s: int, now: Callable[[], float] = time.monotonic) -> structlog.typing.Processor:
    """Return a processor that drops lines of an event beyond `lines_per_s`, and counts them in its next line.

    Debug lines are not limited. Event names are constants in the code, so their number is bounded.
    """
    started_s: dict[str, float] = {}
    written: dict[str, int] = {}

    def limit(_logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if method == "debug":
            return event
        name, now_s = event["event"], now()
        if now_s - started_s.get(name, -1.0) >= 1.0:
            dropped = written.get(name, 0) - lines_per_s
            written[name], started_s[name] = 1, now_s  # in this order, because another thread may be counting
            if dropped > 0:
                event["dropped"] = dropped
            return event
        written[name] += 1
        if written[name] > lines_per_s:
            raise structlog.DropEvent
        return event

    return limit


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

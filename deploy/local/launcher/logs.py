"""Log files of bounded size that hold JSON lines, and the console that shows them."""

import asyncio
import errno
import io
import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from logging import LogRecord, makeLogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, TextIO

MAX_FILE_BYTES = 5_000_000
MAX_LINE_BYTES = 262_144
_COLOURS = (36, 32, 33, 35, 34, 96, 92)
_PREFIX_WIDTH = 12
_POLL_S = 0.3
_QUIET_LEVELS = ("debug", "info")


class LogFile(RotatingFileHandler):
    """A file that is renamed to `<name>.1` at its limit. Errors drop lines: blocking here would block a service."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        super().__init__(path, maxBytes=max_bytes, backupCount=1, encoding="utf-8")

    def write(self, line: str) -> None:
        self.emit(makeLogRecord({"msg": line}))

    def handleError(self, record: LogRecord) -> None:
        """Called on a full disk or a missing folder."""
        with suppress(OSError):
            if self.stream is not None:
                self.stream.close()
        self.stream = None  # the next line opens the file again


class Console:
    """Show lines of services and events of the launcher: formatted on a terminal, as JSON elsewhere.

    It never raises. `is_quiet` hides the services' info lines. `never_blocks` drops lines while the
    reader is stalled (Ctrl-S, a pager), because the printing process keeps the services running.
    """

    def __init__(self, out: TextIO = sys.stdout, *, is_quiet: bool = False, never_blocks: bool = False) -> None:
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")
        self._out = out
        self.is_terminal = out.isatty()
        self._has_colours = self.is_terminal and "NO_COLOR" not in os.environ
        self._colours: dict[str, int] = {}
        self._is_quiet = is_quiet
        self._never_blocks = never_blocks
        self._dropped = 0

    def line(self, text: str) -> None:
        """Show a JSON line of a service."""
        record: dict[str, Any] = json.loads(text)
        if not self._is_quiet or record.get("level") not in _QUIET_LEVELS:
            self._print(self._formatted(record) if self.is_terminal else text)

    def say(self, event: str, **fields: object) -> None:
        """Show an event of the launcher."""
        text = as_json("launcher", "info", event, **fields)
        self._print(self._formatted(json.loads(text)) if self.is_terminal else text)

    def plain(self, text: str) -> None:
        """Show a line as it is, for example to copy it."""
        self._print(text)

    def _formatted(self, record: dict[str, Any]) -> str:
        timestamp, level, source, event = (
            str(record.pop(key, "")) for key in ("timestamp", "level", "service", "event")
        )
        record.pop("logger", None)
        trace = record.pop("exception", None)
        fields = [f"{name}={value}" for name, value in record.items()]
        words = [timestamp[11:19], self._prefix(source), *([] if level in _QUIET_LEVELS else [level.upper()]), event]
        return " ".join((*words, *fields)) + (f"\n{trace}" if trace else "")

    def _prefix(self, source: str) -> str:
        colour = self._colours.setdefault(source, _COLOURS[len(self._colours) % len(_COLOURS)])
        prefix = f"{source:{_PREFIX_WIDTH}} |"
        return f"\033[{colour}m{prefix}\033[0m" if self._has_colours else prefix

    def _print(self, text: str) -> None:
        if self._never_blocks and not select.select([], [self._out], [], 0)[1]:
            self._dropped += 1
            return
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self.say("lines not shown while the terminal was stalled", lines=dropped, see="make logs")
        try:
            print(text, file=self._out, flush=True)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a disk may have space again; a closed reader or terminal stays closed
                self._out = open(os.devnull, "w")


def as_json(source: str, level: str, event: str, **fields: object) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"timestamp": now, "level": level, "service": source, "event": event, **fields})


def normalized(source: str, line: str) -> str:
    """Return a line of a service as JSON; a traceback of the interpreter, for example, is not."""
    try:
        if isinstance(json.loads(line), dict):
            return line
    except ValueError:
        pass
    return as_json(source, "warning", line)


async def lines(source: asyncio.StreamReader) -> AsyncIterator[str]:
    """Yield the lines of a process; one longer than MAX_LINE_BYTES is dropped."""
    while True:
        try:
            line = await source.readline()
        except ValueError:
            continue
        if not line:
            return
        yield line.decode(errors="replace").rstrip("\r\n")


def show(paths: Sequence[Path], console: Console, last: int, follows: bool) -> None:
    """Print the last lines of several logs in the order of their time and, if asked, new lines until Ctrl-C."""
    tails = [Tail(path) for path in paths]
    for line in _new_lines(tails, last)[-last:]:
        console.line(line)
    while follows:
        time.sleep(_POLL_S)
        for line in _new_lines(tails):
            console.line(line)


def _new_lines(tails: Sequence["Tail"], limit: int | None = None) -> list[str]:
    new = [normalized(tail.path.stem, line) for tail in tails for line in deque(tail.new_lines(), maxlen=limit)]
    return sorted(new, key=lambda record: str(json.loads(record).get("timestamp", "")))


class Tail:
    """Read a log file from where the last call stopped; from the start after a rotation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._inode = 0

    def new_lines(self) -> Iterator[str]:
        """Yield the complete lines added since the last call."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return
        with file:
            inode = os.fstat(file.fileno()).st_ino
            if inode != self._inode:
                self._inode, self._offset = inode, 0
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                yield line.decode(errors="replace").rstrip("\r\n")

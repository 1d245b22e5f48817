"""Where log lines go: the terminal with a coloured prefix or JSON elsewhere, and a bounded file per service."""

import errno
import io
import json
import os
import select
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TextIO

MAX_FILE_BYTES = 5_000_000
_COLOURS = (36, 32, 33, 35, 34, 96, 92)
_PREFIX_WIDTH = 12
_CHUNK_BYTES = 65_536
_MAX_LINE_BYTES = 262_144


class ByteSource(Protocol):
    """What lines are cut from; `asyncio.StreamReader` is one."""

    async def read(self, n: int = -1) -> bytes: ...


class LogFile:
    """Appends to one file; past its limit the file becomes `<name>.1` and replaces the one before.

    A line that a full disk has no room for is lost: who stopped taking lines would stop the service that writes them.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES) -> None:
        self._path, self._max_bytes = path, max_bytes
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = path.open("ab", buffering=0)

    def write(self, line: str) -> None:
        with suppress(OSError):
            if self._file.tell() > self._max_bytes:
                self._begin_anew()
            self._file.write(line.encode() + b"\n")

    def close(self) -> None:
        self._file.close()

    def _begin_anew(self) -> None:
        with suppress(FileNotFoundError):  # somebody removed it
            self._path.replace(rotated(self._path))
        fresh = self._path.open("ab", buffering=0)
        self._file.close()
        self._file = fresh


class Console:
    """Prints lines of services and events of the launcher; goes quiet when nobody reads any more, and never raises.

    One that `skips` does not wait for a reader that stands still (Ctrl-S, a pager): who prints keeps services going. It
    says how many lines it left out; files have them all.
    """

    def __init__(self, out: TextIO = sys.stdout, *, skips: bool = False) -> None:
        if isinstance(out, io.TextIOWrapper):
            out.reconfigure(errors="backslashreplace")
        self._out = out
        self.is_terminal = out.isatty()
        self._colours = self.is_terminal and "NO_COLOR" not in os.environ
        self._known: dict[str, int] = {}
        self._skips = skips
        self._skipped = 0

    def line(self, source: str, text: str) -> None:
        """One line that a service wrote."""
        if self.is_terminal:
            self._print(f"{self._prefix(source)} {text}")
        elif text.startswith("{"):
            self._print(text)
        else:
            self._print(_json(source, text))

    def say(self, event: str, **fields: object) -> None:
        """One event of the launcher itself."""
        if self.is_terminal:
            self.line("launcher", " ".join((event, *(f"{name}={value}" for name, value in fields.items()))))
        else:
            self._print(_json("launcher", event, **fields))

    def plain(self, text: str) -> None:
        """A line to copy."""
        self._print(text)

    def _prefix(self, source: str) -> str:
        colour = self._known.setdefault(source, _COLOURS[len(self._known) % len(_COLOURS)])
        prefix = f"{source:{_PREFIX_WIDTH}} |"
        return f"\033[{colour}m{prefix}\033[0m" if self._colours else prefix

    def _print(self, text: str) -> None:
        if self._skips and not _takes(self._out):
            self._skipped += 1
            return
        if self._skipped:
            left_out, self._skipped = self._skipped, 0
            self.say("lines were not shown while nobody read", lines=left_out, see="make logs")
        try:
            print(text, file=self._out, flush=True)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a disk may have room again; a reader or a terminal that left stays away
                self._out = open(os.devnull, "w")  # for the rest of the process


def _takes(out: TextIO) -> bool:
    """Whether it can be written to without waiting for its reader."""
    return bool(select.select([], [out], [], 0)[1])


def rotated(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")


async def lines(source: ByteSource) -> AsyncIterator[str]:
    """The source cut into lines; one without end comes in pieces."""
    rest = b""
    while chunk := await source.read(_CHUNK_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


def _json(source: str, event: str, **fields: object) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"timestamp": now, "level": "info", "service": source, "event": event, **fields})

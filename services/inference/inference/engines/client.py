"""Owns the onnx engine in a process of its own, so that reading and scoring never share Python's lock with the loop.

A process that dies fails its batches as an engine that broke does; so does one that hangs, which is killed.
"""

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Final, Self, cast

import structlog

from inference.engines.base import Answer, ModelError
from inference.engines.process import FAILED, LENGTH, message, pack_texts, unpack_answer
from inference.models.bundle import Bundle

log = structlog.get_logger()

_END_S: Final = 5.0
_PATIENCE_S: Final = 30.0  # a batch takes milliseconds


class ScoringProcessFailed(Exception):
    """The process answered with an error, or hangs, or is gone; the message holds the kind of its error."""


class ProcessClient(asyncio.Protocol):
    """Each has a process, which ends with it. `start` makes one."""

    def __init__(self, loaded: Bundle, patience_s: float) -> None:
        self.card = loaded.card
        self.exited = asyncio.Event()
        self._patience_s = patience_s
        self._received = bytearray()
        self._asked: deque[asyncio.Future[bytes]] = deque()
        self._transport: asyncio.Transport
        self._process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, loaded: Bundle, patience_s: float = _PATIENCE_S) -> Self:
        """Return when it is ready to score. Raises ModelError when the folder can't be served."""
        host = cls(loaded, patience_s)
        ready = host._expect()
        ours, theirs = socket.socketpair()
        with ExitStack() as failing, theirs:
            failing.enter_context(ours)
            program = [sys.executable, "-m", "inference.engines.process"]
            argv = [*program, str(theirs.fileno()), str(loaded.folder), loaded.card.revision]
            argv.append(loaded.model.relative_to(loaded.folder).as_posix())
            host._process = await asyncio.create_subprocess_exec(
                *argv, pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL
            )
            failing.pop_all()
        await asyncio.get_running_loop().create_unix_connection(lambda: host, sock=ours)
        try:
            note = _checked(await ready).decode()  # loading a model has no time limit
        except ScoringProcessFailed as error:
            await host.close()
            raise ModelError(str(error)) from error
        except BaseException:
            await host.close()
            raise
        if note:
            log.warning("model note", model=loaded.card.name, note=note)
        return host

    @property
    def pid(self) -> int:
        return self._process.pid

    async def score(self, texts: Sequence[str]) -> Answer:
        """Raises ScoringProcessFailed."""
        asked = message(pack_texts(texts))
        if self._transport.is_closing():
            raise ScoringProcessFailed("the scoring process is gone")
        answered = self._expect()
        self._transport.write(asked)
        try:
            async with asyncio.timeout(self._patience_s):
                return unpack_answer(_checked(await answered))
        except TimeoutError:
            self._kill()
            raise ScoringProcessFailed("the scoring process hangs") from None

    async def close(self) -> None:
        self._transport.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await self._process.wait()
        finally:  # also when this is called off: the process must not stay
            self._kill()
            await self._process.wait()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            answered = self._asked.popleft()
            if not answered.done():  # who asked may have been cancelled
                answered.set_result(bytes(self._received[LENGTH.size : end]))
            del self._received[:end]

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        for answered in self._asked:
            if not answered.done():
                answered.set_exception(ScoringProcessFailed("the scoring process is gone"))
        self._asked.clear()
        self.exited.set()  # last: who waits for an answer goes first, and knows which texts it was over

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    def _expect(self) -> asyncio.Future[bytes]:
        """The next answer that nobody waits for yet."""
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._asked.append(answered)
        return answered


def _checked(answer: bytes) -> bytes:
    if answer[:1] == FAILED:
        raise ScoringProcessFailed(answer[1:].decode())
    return answer[1:]

"""Client of the onnx engine in a separate process, so that scoring never shares Python's lock with the event loop.

When the process dies, its batches fail as with a broken engine. One that hangs is killed.
"""

import asyncio
import marshal
import socket
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Final, Self, cast

import structlog

from inference.engines.base import ModelError, Row
from inference.engines.process import FAILED, LENGTH, message, unpack_rows
from inference.models.bundle import Bundle

log = structlog.get_logger()

_END_S: Final = 5.0
_PATIENCE_S: Final = 30.0  # a batch takes milliseconds


class ScoringProcessFailed(Exception):
    """The process answered with an error, hangs or has exited. The message holds the class of its error."""


class ProcessClient(asyncio.Protocol):
    """`start` creates one with its process, `close` ends both."""

    def __init__(self, loaded: Bundle, patience_s: float) -> None:
        self.card = loaded.card
        self.exited = asyncio.Event()
        self._patience_s = patience_s
        self._received = bytearray()
        self._pending: deque[asyncio.Future[bytes]] = deque()
        self._transport: asyncio.Transport
        self._process: asyncio.subprocess.Process

    @classmethod
    async def start(cls, loaded: Bundle, patience_s: float = _PATIENCE_S) -> Self:
        """Return when it is ready to score. Raises ModelError when the folder can't be served."""
        client = cls(loaded, patience_s)
        ready = client._expect()
        parent_end, child_end = socket.socketpair()
        with ExitStack() as failing, child_end:
            failing.enter_context(parent_end)
            program = [sys.executable, "-m", "inference.engines.process"]
            argv = [*program, str(child_end.fileno()), str(loaded.folder), loaded.card.revision]
            argv.append(loaded.model.relative_to(loaded.folder).as_posix())
            client._process = await asyncio.create_subprocess_exec(
                *argv, pass_fds=[child_end.fileno()], stdin=asyncio.subprocess.DEVNULL
            )
            failing.pop_all()
        await asyncio.get_running_loop().create_unix_connection(lambda: client, sock=parent_end)
        try:
            note = _checked(await ready).decode()  # loading a model has no time limit
        except ScoringProcessFailed as error:
            await client.close()
            raise ModelError(str(error)) from error
        except BaseException:
            await client.close()
            raise
        if note:
            log.warning("model note", model=loaded.card.name, note=note)
        return client

    @property
    def pid(self) -> int:
        return self._process.pid

    async def score(self, texts: Sequence[str]) -> list[Row]:
        """Raises ScoringProcessFailed."""
        if self._transport.is_closing():
            raise ScoringProcessFailed("the scoring process is gone")
        response = self._expect()
        self._transport.write(message(marshal.dumps(list(texts))))
        try:
            async with asyncio.timeout(self._patience_s):
                return unpack_rows(_checked(await response))
        except TimeoutError:
            self._kill()
            raise ScoringProcessFailed("the scoring process hangs") from None

    async def close(self) -> None:
        self._transport.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_END_S):
                    await self._process.wait()
        finally:  # also when cancelled
            self._kill()
            await self._process.wait()

    # ---- called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._received)[0]
            if len(self._received) < end:
                return
            response = self._pending.popleft()
            if not response.done():  # its caller may have been cancelled
                response.set_result(bytes(self._received[LENGTH.size : end]))
            del self._received[:end]

    def eof_received(self) -> None:
        self._end()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def _end(self) -> None:
        for response in self._pending:
            if not response.done():
                response.set_exception(ScoringProcessFailed("the scoring process is gone"))
        self._pending.clear()
        self.exited.set()  # last: the failed batches come first

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    def _expect(self) -> asyncio.Future[bytes]:
        """Return a future for the next response."""
        response: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._pending.append(response)
        return response


def _checked(answer: bytes) -> bytes:
    if answer[:1] == FAILED:
        raise ScoringProcessFailed(answer[1:].decode())
    return answer[1:]

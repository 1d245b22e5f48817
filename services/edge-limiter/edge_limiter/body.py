"""One body between the connection that receives it and the task that reads it; bounded by holding the connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

HIGH_WATER_BYTES: Final = 64 << 10


class BodyTooLarge(Exception):
    """More bytes came than the reader takes."""


class ClientGone(Exception):
    """The client went away in the middle of its request."""


class BodyBuffer:
    """Fed by a protocol, read by one task. `hold` and `release` stop and restart what feeds it."""

    __slots__ = (
        "_before",
        "_error",
        "_first",
        "_hold",
        "_is_dropped",
        "_release",
        "_rest",
        "_size",
        "_waiter",
        "is_complete",
        "is_held",
    )

    def __init__(
        self, hold: Callable[[], None], release: Callable[[], None], before: Callable[[], None] | None = None
    ) -> None:
        """`before` is called once, when a reader first has to wait."""
        self._hold = hold
        self._release = release
        self._before = before
        self._first = b""
        self._rest: bytearray | None = None  # in one: a list of pieces of two bytes has thirty times their size
        self._size = 0
        self.is_held = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_dropped = False
        self.is_complete = False

    def feed(self, piece: bytes) -> None:
        if self._is_dropped:
            return
        if not self._size:
            self._first = piece
        elif self._rest is None:
            self._rest = bytearray(piece)
        else:
            self._rest += piece
        self._size += len(piece)
        if self._size > HIGH_WATER_BYTES and not self.is_held:
            self.is_held = True
            self._hold()
        self._wake()

    def finish(self) -> None:
        """The body is whole. Whatever goes wrong later is none of its reader's business."""
        if self._error is None:
            self.is_complete = True
            self._wake()

    def put_back(self, whole: bytes) -> None:
        """Let the body be read a second time."""
        self._first, self._rest, self._size = whole, None, len(whole)

    def drop(self) -> None:
        """Nobody will read it: what came and what comes is thrown away."""
        self._is_dropped = True
        if self._size:
            self._take()

    def fail(self, error: Exception) -> None:
        """The reader hears `error` once it has read what came before, unless the body is whole already."""
        if not self.is_complete and self._error is None:
            self._error = error
            self._wake()

    async def piece(self) -> bytes:
        """What has come since the last call, at least a byte; empty at the end. Raises what `fail` was given."""
        while not self._size:
            if self._error is not None:
                raise self._error
            if self.is_complete:
                return b""
            await self._wait()
        return self._take()

    async def whole(self, max_bytes: int) -> bytes:
        """All of it. Raises BodyTooLarge, and what `fail` was given."""
        if self.is_complete and self._size <= max_bytes:
            return self._take()
        whole = bytearray()
        while piece := await self.piece():
            whole += piece
            if len(whole) > max_bytes:
                raise BodyTooLarge
        return bytes(whole)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.piece():
            yield piece

    def _take(self) -> bytes:
        whole = self._first if self._rest is None else self._first + self._rest
        self._first, self._rest, self._size = b"", None, 0
        if self.is_held:
            self.is_held = False
            self._release()
        return whole

    async def _wait(self) -> None:
        if self._before is not None:
            self._before()
            self._before = None
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

"""One body between the connection that receives it and the task that reads it; bounded by holding the connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

HIGH_WATER_BYTES: Final = 64 << 10


class BodyTooLarge(Exception):
    """More bytes came than the reader takes."""


class ClientGone(Exception):
    """The client went away in the middle of its request."""


class NoRoom(Exception):
    """This process holds as many bytes of bodies as it may."""


class Room:
    """How many bytes of bodies, and of heads that wait, a process holds, and how many it may.

    Hundreds of clients with a MiB each fill a pod.
    """

    __slots__ = ("held_bytes", "limit_bytes")

    def __init__(self, limit_bytes: float) -> None:
        self.held_bytes = 0
        self.limit_bytes = limit_bytes


UNBOUNDED: Final = Room(float("inf"))


class BodyBuffer:
    """Fed by a protocol, read by one task. `hold` and `release` stop and restart what feeds it."""

    __slots__ = (
        "_before",
        "_error",
        "_first",
        "_held_bytes",
        "_hold",
        "_is_dropped",
        "_release",
        "_rest",
        "_room",
        "_size",
        "_waiter",
        "is_complete",
        "is_held",
    )

    def __init__(
        self,
        hold: Callable[[], None],
        release: Callable[[], None],
        before: Callable[[], None] | None = None,
        room: Room = UNBOUNDED,
    ) -> None:
        """`before` is called once, when a reader first has to wait. What was read takes room until it is freed."""
        self._room = room
        self._held_bytes = 0
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
        if self._is_dropped or self.is_complete:  # complete while more comes: a stream that was ended
            return
        if not self._size:
            self._first = piece
        elif self._rest is None:
            self._rest = bytearray(piece)
        else:
            self._rest += piece
        size = len(piece)
        self._size += size
        self._held_bytes += size
        self._room.held_bytes += size
        if self._size > HIGH_WATER_BYTES and not self.is_held:
            self.is_held = True
            self._hold()
        if self._waiter is not None:
            self._wake()

    def finish(self) -> None:
        """The body is whole. Whatever goes wrong later is none of its reader's business."""
        if self._error is None:
            self.is_complete = True
            if self._waiter is not None:
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
            if self._is_dropped:  # what is missing must not look like the end
                raise ClientGone
            if self._error is not None:
                raise self._error
            if self.is_complete:
                return b""
            await self._wait()
        return self._take()

    def taken(self, max_bytes: int) -> bytes:
        """All of it, when it is complete. Raises BodyTooLarge, and ClientGone when it was dropped."""
        if self._is_dropped:
            raise ClientGone
        if self._size > max_bytes:
            raise BodyTooLarge
        return self._take()

    async def whole(self, max_bytes: int) -> bytes:
        """All of it. Raises BodyTooLarge, NoRoom while more is to come, and what `fail` was given."""
        whole = bytearray()
        while piece := await self.piece():
            whole += piece
            if len(whole) > max_bytes:
                raise BodyTooLarge
            self._need_room()
        return bytes(whole)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Piece by piece. What was passed on still takes room: the service that reads it keeps it until the end."""
        while piece := await self.piece():
            self._need_room()
            yield piece

    def _need_room(self) -> None:
        if self._room.held_bytes > self._room.limit_bytes and not self.is_complete:
            raise NoRoom

    def free_room(self) -> None:
        """Nobody has any of it any more."""
        if self._held_bytes:
            self._hold_bytes(-self._held_bytes)

    __del__ = free_room

    def _hold_bytes(self, count: int) -> None:
        self._held_bytes += count
        self._room.held_bytes += count

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

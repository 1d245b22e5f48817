"""One client connection: has its requests answered one after the other, or by a page, and ends it.

Reads no more while a request waits for its turn, and answers no more while the client does not read.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from edge_limiter import limits
from edge_limiter.acceptance import Unacceptable
from edge_limiter.body import Room
from edge_limiter.hangup import has_hung_up
from edge_limiter.incoming import Incoming
from edge_limiter.outgoing import Outgoing
from edge_limiter.request import Request
from edge_limiter.unread import HIGH_WATER_BYTES, Unread

Later = Callable[[], Coroutine[Any, Any, None]]
"""What is still to be done for a request, and has to be waited for."""

Handle = Callable[[Request, "Connection"], Later | None]
"""Answers a request, or gives what will."""

Again = Callable[[str, bytes], bytes | None]
"""The whole answer to what this peer sent, if that was refused before and still has to be; else it must be read."""


class Keeper(Protocol):
    """Who keeps the connections: the door, or a test's own."""

    patience: limits.Patience
    room: Room
    unread: Unread
    is_draining: bool
    handle: Handle
    again: Again

    def opened(self, connection: "Connection") -> bool: ...
    def closed(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """`out` answers the request that is being handled. `is_refused`: the last one was, at once: it may come again."""

    peer: str
    out: Outgoing
    _incoming: Incoming

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._active: Request | None = None
        self._page: asyncio.Protocol | None = None
        self.task: asyncio.Task[None] | None = None
        self._holds = 0  # by bodies that nobody reads, and by what waits: while there is one, nothing is read
        self._is_behind = self._lingers = False
        self._stalled_since: float | None = None
        self.is_refused = False
        self._tries = limits.REPEAT_TRIES

    @property
    def bytes_in(self) -> int:
        return self._incoming.bytes_in

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self._active is not None or self._page is not None

    def hand_over(self, page: asyncio.Protocol, head: bytes) -> None:
        """Let `page` answer the last request. The connection is still the keeper's, to be counted and ended."""
        assert self._transport is not None
        self._page = page
        self._stop_reading()
        page.connection_made(self._transport)
        page.data_received(head)

    def check(self, now: float) -> None:
        """End what has taken too long, or is for nobody any more; called about twice a second."""
        incoming, transport, patience = self._incoming, self._transport, self._keeper.patience
        if transport is None:
            return
        took_s = now - incoming.since
        if self._holds and self._active is not None and has_hung_up(transport):
            self.abort()
        elif self._lingers or self._stalled_since is not None:
            stalled_s = 0.0 if self._stalled_since is None else now - self._stalled_since
            if (self._lingers and took_s > limits.LINGER_S) or stalled_s > patience.send_s:
                self.abort()
        elif self._page is not None or transport.is_closing():
            if took_s > patience.send_s:
                self.abort()
        elif incoming.stage in ("head", "body"):
            if not self._holds and (refusal := incoming.late(now, patience)) is not None:
                self._refuse(refusal)
        elif self._active is None and took_s > patience.keepalive_s:
            self._close()

    def drain(self) -> None:
        """Close when idle; what is being answered closes at its end."""
        if not self.is_busy and self._transport is not None:
            self._close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else "0.0.0.0"
        self._transport.set_write_buffer_limits(HIGH_WATER_BYTES)
        self.out = Outgoing(self._transport, self._may_keep)
        room, now = self._keeper.room, self._loop.time()
        self._incoming = Incoming(self.peer, room, now, self._hold, self._release, self.out.go_on)
        if not self._keeper.opened(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        incoming = self._incoming
        if incoming.stage == "ended":
            if incoming.skip(data) > limits.LINGER_BYTES:
                self.abort()
            return
        may_repeat = self.is_refused and self._may_repeat(data)
        if may_repeat and self._is_answered_again(data):
            return
        refusal = incoming.read(data, self._loop.time())
        if may_repeat and incoming.stage == "between" and len(incoming.requests) == 1:
            incoming.requests[0].whole = data
        if refusal is not None:
            self._refuse(refusal)
        elif incoming.requests:
            self._start_next()
        if incoming.stage == "head" or self._is_behind:
            self._take_room()
        elif incoming.held_bytes:
            incoming.free_room()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._keeper.unread.remove(self)
        self.out.forget()
        self._incoming.forget()
        if self._active is not None:
            self._active.body.drop()
            self._active.body.free_room()
        if self.task is not None:
            self._loop.call_soon(self.task.cancel)  # after its first step: it ends what it has begun, and counts it
            self.task = None  # it holds us, and we it, until the collector comes, much later
        if self._page is not None:
            self._page.connection_lost(error)
        self._keeper.closed(self)

    def pause_writing(self) -> None:
        assert self._transport is not None
        self._stalled_since = self._loop.time()
        self._keeper.unread.add(self, self._transport.get_write_buffer_size())
        self.out.pause()
        if self._page is not None:
            self._page.pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        self._keeper.unread.remove(self)
        self.out.resume()
        if self._page is not None:
            self._incoming.since = self._loop.time()
            self._page.resume_writing()
        else:
            self._start_next()

    def _may_repeat(self, data: bytes) -> bool:
        if not self._tries or self._stalled_since is not None or self._keeper.is_draining:
            return False
        return len(data) <= limits.REPEAT_BYTES and self._incoming.is_idle and not self.is_busy

    def _is_answered_again(self, data: bytes) -> bool:
        answer = self._keeper.again(self.peer, data)
        if answer is None:
            self._tries -= 1
            return False
        self._tries = min(limits.REPEAT_TRIES, self._tries + 1)
        self._incoming.pass_over(len(data), self._loop.time())
        self.out.repeat(answer)
        return True

    # one request after the other

    def _start_next(self) -> None:
        """Answer what waits, unless another is being answered, or the client does not read: answers would pile up.

        While something waits nothing more is read.
        """
        waiting = self._incoming.requests
        while waiting and self._active is None and self._stalled_since is None:
            request = self._active = waiting.popleft()
            self.out.start(request)
            later = self._keeper.handle(request, self)
            if later is None:
                self._end(request)
            else:
                self.task = self._loop.create_task(self._run(request, later))
        if waiting and not self._is_behind:
            self._is_behind = True
            self._hold()
        elif self._is_behind and not waiting:
            self._is_behind = False
            self._release()
            self._incoming.free_room()

    async def _run(self, request: Request, later: Later) -> None:
        try:
            await later()
        finally:
            self.task = None
            self._end(request)
            self._start_next()

    def _end(self, request: Request) -> None:
        self._active = None
        if self._transport is not None and self._page is None:
            self._go_on(request)

    def _go_on(self, request: Request) -> None:
        if self.out.closes or not self.out.has_ended:
            self._close()
            return
        request.body.drop()
        self._incoming.since = self._loop.time()
        if self._keeper.is_draining and not self._incoming.requests:
            self._close()

    def _may_keep(self) -> bool:
        request = self._active
        if request is None or self._keeper.is_draining or not request.keeps_alive:
            return False
        return bool(self._incoming.requests) or (self._incoming.stage != "ended" and request.ends_soon)

    def _refuse(self, refusal: Unacceptable) -> None:
        """Refuse what is being received when its turn comes."""
        self._incoming.refuse(refusal)
        if self._incoming.requests:
            self._start_next()
        elif self._active is None:
            self._close()  # it was answered without its body

    def _take_room(self) -> None:
        if self._incoming.take_room():
            return
        if self._is_behind:
            self.abort()
        else:
            self._refuse(Unacceptable(*limits.NO_ROOM))

    def _close(self) -> None:
        """Close without losing the answer: with unread bytes before it, closing would reset the connection."""
        transport, incoming = self._transport, self._incoming
        assert transport is not None
        incoming.since = self._loop.time()
        if incoming.stage in ("body", "ended") or incoming.requests:
            self._lingers = True
            self._stop_reading()
            if transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
        else:
            transport.close()

    def _stop_reading(self) -> None:
        """What still comes is thrown away."""
        self._incoming.stop()
        self._is_behind = False
        while self._holds:
            self._release()

    def _hold(self) -> None:
        self._holds += 1
        if self._holds == 1 and self._transport is not None:
            self._transport.pause_reading()

    def _release(self) -> None:
        self._holds -= 1
        if self._holds == 0 and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._incoming.restart(self._loop.time())

"""One client connection: reads requests through llhttp and has them handled one after the other.

What is malformed, too large or too slow is refused at the door, and nothing after it is read: it becomes a `Request`
with a refusal, so that its problem document, its metrics and its log line are made where all others are.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

import httptools

from edge_limiter import limits
from edge_limiter.acceptance import Unacceptable
from edge_limiter.body import BodyBuffer, ClientGone, Room
from edge_limiter.hangup import has_hung_up
from edge_limiter.outgoing import Outgoing
from edge_limiter.request import Request, read_head
from edge_limiter.wire import body_head

Later = Callable[[], Coroutine[Any, Any, None]]
"""What is still to be done for a request, and has to be waited for."""

Handle = Callable[[Request, "Connection"], Later | None]
"""Answers a request, or gives what will."""


class Keeper(Protocol):
    """Who keeps the connections: the door, or a test's own."""

    patience: limits.Patience
    room: Room
    is_draining: bool
    handle: Handle

    def opened(self, connection: "Connection") -> bool: ...
    def closed(self, connection: "Connection") -> None: ...


class Connection(asyncio.Protocol):
    """`out` answers the request that is being handled."""

    out: Outgoing
    _lines: list[tuple[bytes, bytes]]

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self.peer = ""
        self._waiting: deque[Request] = deque()
        self._active: Request | None = None
        self._receiving: Request | None = None
        self._page: asyncio.Protocol | None = None
        self.task: asyncio.Task[None] | None = None
        self._holds = 0
        self._is_in_head = self._is_deaf = self._lingers = self._is_behind = False
        self._is_before_body = False  # what the parser calls says nothing new
        self._since = self._loop.time()
        self._stalled_since: float | None = None
        self._read_bytes = self._head_from = self._body_bytes = self._timed_bytes = 0
        self._overhead = self._bare_bytes = self._held_bytes = self.bytes_in = 0

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
        patience = self._keeper.patience
        if self._holds and self._active is not None and self._transport is not None and has_hung_up(self._transport):
            self.abort()
        elif self._lingers or self._stalled_since is not None:
            stalled_s = 0.0 if self._stalled_since is None else now - self._stalled_since
            if (self._lingers and now - self._since > limits.LINGER_S) or stalled_s > patience.send_s:
                self.abort()
        elif self._page is not None or (self._transport is not None and self._transport.is_closing()):
            if now - self._since > patience.send_s:
                self.abort()
        elif self._is_in_head:
            if not self._holds and now - self._since > patience.head_s:
                self._reject(Unacceptable(*limits.LATE_HEAD))
                self._start_next()
        elif self._receiving is not None:
            self._check_body(now, patience)
        elif self._active is None and now - self._since > patience.keepalive_s:
            self._close()

    def _check_body(self, now: float, patience: limits.Patience) -> None:
        took_s = now - self._since
        if not self._holds and took_s > patience.body_s:
            if self._body_bytes - self._timed_bytes < patience.min_rate * took_s:
                self._reject(Unacceptable(*limits.SLOW_BODY))
            self._since, self._timed_bytes = now, self._body_bytes

    def drain(self) -> None:
        """Close when idle; what is being answered closes at its end."""
        if not self.is_busy and self._transport is not None:
            self._close()

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else "0.0.0.0"
        self.out = Outgoing(self._transport, self._may_keep)
        if not self._keeper.opened(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        self._read_bytes = len(data)
        self.bytes_in += self._read_bytes
        self._overhead += self._read_bytes
        self._bare_bytes += self._read_bytes
        if self._is_deaf:
            if self._overhead > limits.LINGER_BYTES:
                self.abort()
            return
        self._parse(data)
        if self._overhead > limits.OVERHEAD_BYTES:
            self._check_overhead()
        if self._waiting:
            self._start_next()
        if self._is_in_head or self._is_behind:
            self._hold_heads()
        elif self._held_bytes:
            self._free_heads()

    def _parse(self, data: bytes) -> None:
        try:
            while data:
                try:
                    self._parser.feed_data(data)
                    return
                except httptools.HttpParserUpgrade as offer:  # not taken up: what follows is HTTP as before
                    data = data[offer.args[0] :]
                    if self._is_before_body and self._receiving is not None:
                        self._read_on(self._receiving)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._reject(cause if isinstance(cause, Unacceptable) else Unacceptable(*limits.MALFORMED))

    def _read_on(self, request: Request) -> None:
        """Go on with a parser that takes what comes for the body: the other one takes it for an offered protocol."""
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(body_head(request.length, request.keeps_alive))
        self._is_before_body = False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self.out.resume()
        if self._receiving is not None:
            self._receiving.body.fail(ClientGone())
        if self.task is not None:
            self._loop.call_soon(self.task.cancel)  # after its first step: it ends what it has begun, and counts it
        self._forget()
        if self._page is not None:
            self._page.connection_lost(error)
        self._keeper.closed(self)

    def _forget(self) -> None:
        """Let go of what was sent: we, the parser and a task hold each other until the collector comes, much later."""
        for request in (*self._waiting, self._receiving, self._active):
            if request is not None:
                request.body.drop()
                request.body.free_room()
        self._free_heads()
        self._waiting.clear()
        self._receiving = self.task = None
        self._lines = []
        del self._parser

    def pause_writing(self) -> None:
        self._stalled_since = self._loop.time()
        self.out.pause()
        if self._page is not None:
            self._page.pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        self.out.resume()
        if self._page is not None:
            self._since = self._loop.time()
            self._page.resume_writing()
        else:
            self._start_next()

    # what the parser calls

    def on_message_begin(self) -> None:
        if self._is_before_body:
            return
        if len(self._waiting) >= limits.MAX_PIPELINED:
            self._is_deaf = True  # they are answered, and the connection is closed: the client may ask again
            raise Unacceptable(*limits.MALFORMED)
        self._is_in_head = True
        self._since = self._loop.time()
        self._overhead, self._url, self._lines = 0, b"", []
        self._head_from = self.bytes_in - self._read_bytes

    def on_url(self, part: bytes) -> None:
        if self._is_before_body:
            return
        self._url += part
        if len(self._url) > limits.MAX_TARGET_BYTES:
            raise Unacceptable(*limits.LONG_TARGET)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:  # else it is a trailer: it ends here
            if len(self._lines) == limits.MAX_HEADERS:
                raise Unacceptable(*limits.LARGE_HEAD)
            self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        if self._is_before_body:
            return
        parser, at_most_bytes = self._parser, self.bytes_in - self._head_from
        lines, self._lines = self._lines, []
        method, version = parser.get_method().decode("latin-1"), parser.get_http_version()
        self._is_in_head, self._since = False, self._loop.time()
        self._overhead = self._bare_bytes = self._body_bytes = self._timed_bytes = 0
        headers, fields, refusal = read_head(method, version, lines, at_most_bytes)
        body = BodyBuffer(self._hold, self._release, self.out.go_on if "expect" in fields else None, self._keeper.room)
        target = self._url.decode("latin-1")
        self._receiving = request = Request(method, target, version, headers, fields, self.peer, body, refusal)
        request.keeps_alive = parser.should_keep_alive() and not request.is_1_0
        self._is_before_body = "upgrade" in fields and request.has_body and parser.should_upgrade()
        self._waiting.append(request)
        if refusal is not None:
            self._is_deaf = True
            raise refusal

    def on_body(self, piece: bytes) -> None:
        assert self._receiving is not None
        self._bare_bytes = 0
        self._body_bytes += len(piece)
        self._receiving.body.feed(piece)

    def on_message_complete(self) -> None:
        if self._is_before_body:
            return
        if self._receiving is not None:
            self._receiving.body.finish()
            self._receiving = None
        self._since = self._loop.time()

    # one request after the other

    def _start_next(self) -> None:
        """Answer what waits, unless another is being answered, or the client does not read: answers would pile up.

        While something waits nothing more is read.
        """
        while self._waiting and self._active is None and self._stalled_since is None:
            request = self._active = self._waiting.popleft()
            self.out.start(request)
            later = self._keeper.handle(request, self)
            if later is None:
                self._end(request)
            else:
                self.task = self._loop.create_task(self._run(request, later))
        if bool(self._waiting) != self._is_behind:
            self._is_behind = not self._is_behind
            (self._hold if self._is_behind else self._release)()
            if not self._is_behind:
                self._free_heads()

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
        self._since = self._loop.time()
        if self._keeper.is_draining and not self._waiting:
            self._close()

    def _may_keep(self) -> bool:
        request = self._active
        if request is None or self._keeper.is_draining or not request.keeps_alive:
            return False
        return bool(self._waiting) or (not self._is_deaf and request.ends_soon)

    def _check_overhead(self) -> None:
        """Nobody may send without end what is no body: the parser keeps a line until it is whole."""
        if self._is_in_head:
            self._reject(Unacceptable(*limits.LARGE_HEAD))
        elif self._receiving and max(self._bare_bytes, self._overhead - 8 * self._body_bytes) > limits.OVERHEAD_BYTES:
            self._reject(Unacceptable(*limits.MALFORMED))

    def _hold_heads(self) -> None:
        """Heads that are not whole and requests whose turn has not come take room, as bodies do."""
        room = self._keeper.room
        fields = len(self._lines) + sum(len(request.headers) for request in self._waiting)
        held_bytes = max(self.bytes_in - self._head_from, self._read_bytes) + limits.FIELD_BYTES * fields
        room.held_bytes += held_bytes - self._held_bytes
        self._held_bytes = held_bytes
        if room.held_bytes > room.limit_bytes:
            if self._is_behind:
                self.abort()
            else:
                self._reject(Unacceptable(*limits.NO_ROOM))
                self._start_next()

    def _free_heads(self) -> None:
        self._keeper.room.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def _reject(self, refusal: Unacceptable) -> None:
        """Refuse what is being received, and read nothing after it."""
        was_deaf, self._is_deaf, self._is_in_head = self._is_deaf, True, False
        receiving, self._receiving = self._receiving, None
        if receiving is not None:
            receiving.body.fail(refusal)
            if self._active is None and not self._waiting:
                self._close()  # it was answered without its body
        elif not was_deaf:
            body = BodyBuffer(self._hold, self._release)
            self._waiting.append(Request("", "", "1.1", [], {}, self.peer, body, refusal))

    def _close(self) -> None:
        """Close without losing the answer: with unread bytes before it, closing would reset the connection."""
        transport = self._transport
        assert transport is not None
        self._since = self._loop.time()
        if self._is_deaf or self._receiving is not None or self._waiting:
            self._lingers = True
            self._stop_reading()
            if transport.can_write_eof() and not transport.is_closing():
                transport.write_eof()
        else:
            transport.close()

    def _stop_reading(self) -> None:
        """What still comes is thrown away."""
        self._is_deaf, self._is_in_head, self._overhead, self._receiving = True, False, 0, None
        self._waiting.clear()
        self._free_heads()
        self._is_behind = False
        while self._holds:
            self._release()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _hold(self) -> None:
        self._holds += 1
        if self._holds == 1 and self._transport is not None:
            self._transport.pause_reading()

    def _release(self) -> None:
        self._holds -= 1
        if self._holds == 0 and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            if self._receiving is not None or self._is_in_head:
                self._since, self._timed_bytes = self._loop.time(), self._body_bytes

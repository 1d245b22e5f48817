"""One client connection: reads requests with aiohttp's parser and has them answered one after the other.

Replaces two methods of aiohttp's handler. `data_received` parses one request at a time: bytes behind it wait, so that a
malformed request cannot take a well-formed one with it. `start` answers requests in the connection's own task, without
aiohttp's request and response objects, which cost more than everything else here.
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast

import structlog
from aiohttp import StreamReader, web
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

from edge_limiter.server.request import (
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_TARGET_BYTES,
    BadRequest,
    ClientDisconnected,
    Request,
    from_parse_error,
    head_too_large,
    malformed,
    parse_request,
)
from edge_limiter.server.response import ResponseWriter

if TYPE_CHECKING:
    from edge_limiter.server.http_server import HttpServer

log = structlog.get_logger()

HEAD_S: Final = 15.0
BODY_S: Final = 15.0
BODY_BYTES_PER_S: Final = 100
"""A body has BODY_S, and a second more for each so many bytes received."""
SEND_S: Final = 60.0
READ_BUFFER_BYTES: Final = 32 << 10
"""A body that is not read is buffered up to twice this size."""
MAX_PIPELINED: Final = 32
"""Requests answered from one read; then the connection closes, and the client may repeat the rest."""
MAX_PENDING_BYTES: Final = 64 << 10
"""Bytes kept behind the request in progress."""
UNCOUNTED_BYTES: Final = 4 << 10
"""A complete request up to this size, and less of a response that is not read, is not counted. 20,000 times this is
80 MiB.
"""
FIELD_BYTES: Final = 512
"""About what a header takes in memory besides its bytes."""
OVERHEAD_BYTES: Final = 64 << 10
"""Chunk heads, extensions and trailers of one body: this much, plus eight times the body."""
UNLIMITED: Final = 1 << 62
LINGER_S: Final = 2.0
LINGER_BYTES: Final = 4 << 20
"""What is discarded after a connection's last response: closing with unread input would reset the connection."""


class ClientConnection(web.RequestHandler):
    """`client` is the peer's key for its share of the budgets; `task` answers the connection's requests."""

    peer: str
    client: bytes | None
    response: ResponseWriter
    _tcp: asyncio.Transport

    def __init__(self, server: "HttpServer", loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(server, loop=loop, access_log=cast(object, None), keepalive_timeout=0)  # type: ignore[arg-type]
        self._server = server
        self._parser = self._create_parser()
        self._request: Request | None = None
        self._pending = b""
        self._pipelined = 0
        self._stage_started = loop.time()  # the wait for a head, then for its body, then to close
        self._stage_bytes = 0  # received of the present head or, after it, of the present body
        self._head_end = b""  # the last bytes of a head that is not complete
        self._fields = 0  # in the present head so far
        self._body_left_bytes = 0
        self._is_upgrade = False
        self._held_bytes = 0  # taken from the memory budget
        self._stalled_since: float | None = None
        self._is_refusing = False
        self._lingers = False

    @property
    def is_busy(self) -> bool:
        """Whether a request is being answered."""
        return self._request is not None

    @property
    def task(self) -> "asyncio.Task[None] | None":
        return self._task_handler

    @property
    def is_sending(self) -> bool:
        """Whether a last response waits for the client to read it."""
        return self._tcp.is_closing() and self._tcp.get_write_buffer_size() > 0

    def abort(self) -> None:
        self._tcp.abort()

    def write(self, data: bytes) -> None:
        self._tcp.write(data)

    async def drain(self) -> None:
        """Wait until the client has read enough."""
        if self._paused:
            await self._drain_helper()

    def close_if_idle(self) -> None:
        if self._request is None:
            self._tcp.close()

    def can_keep_alive(self) -> bool:
        """Whether the connection stays open after the response in progress."""
        request = self._request
        if request is None or self._is_refusing or self._server.is_draining or not request.keep_alive:
            return False
        if "transfer-encoding" in request.fields and not self._is_upgrade:
            return False  # trailers, and bytes behind the body, would stay in the parser
        return request.is_drainable and self._pipelined < MAX_PIPELINED

    def enforce_timeouts(self, now: float) -> None:
        """Refuse or close what takes too long; called about twice a second."""
        took_s = now - self._stage_started
        if self._stalled_since is not None:
            if now - self._stalled_since > SEND_S:
                self.abort()
        elif self._lingers or self._tcp.is_closing():
            if took_s > (LINGER_S if self._lingers else SEND_S):
                self.abort()
        elif self._request is None:
            if self._stage_bytes and took_s > HEAD_S:
                self._refuse(BadRequest(408, "The head of the request did not arrive in time."))
            elif not self._stage_bytes and took_s > self._server.keep_alive_s:
                self._tcp.close()
        elif not self._request.is_complete and not self._is_refusing:
            if took_s > BODY_S + self._request.content.total_bytes / BODY_BYTES_PER_S:
                self._refuse(BadRequest(408, "The body did not arrive in time."))

    # called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else "0.0.0.0"
        self.client = self._server.client_of(self.peer)
        if not self._server.connection_budget.take(self.client):
            self.abort()
            return
        self._tcp.set_write_buffer_limits(UNCOUNTED_BYTES)
        self.response = ResponseWriter(self)
        super().connection_made(transport)

    def connection_lost(self, error: BaseException | None) -> None:
        if self.transport is None:  # it was refused
            return
        if self._request is not None and not self._request.is_complete:
            self._request.content.set_exception(ClientDisconnected())
        self.response.detach()
        self._release_memory()
        super().connection_lost(error)
        self._request, self._pending = None, b""

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled_since = self._loop.time()
        if not self._may_hold(self._tcp.get_write_buffer_size()):
            self.abort()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled_since = None

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:  # aiohttp calls this after every read of a body
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        self._server.received_bytes += len(data)
        if self._is_refusing or self._lingers:
            self._stage_bytes += len(data)
            if self._stage_bytes > LINGER_BYTES:
                self.abort()
        else:
            self._receive(data)

    # reading

    def _create_parser(self) -> HttpRequestParser:
        return HttpRequestParser(
            self,
            self._loop,
            READ_BUFFER_BYTES,
            max_line_size=MAX_TARGET_BYTES,
            max_field_size=MAX_HEAD_BYTES,
            max_headers=MAX_HEADERS,
            auto_decompress=False,
            max_msg_queue_size=1,  # pause after each request
        )

    def _receive(self, data: bytes) -> None:
        """Parse to the end of one request, and keep what is behind it."""
        while self._request is None and data and not self._is_refusing:
            data = self._parse_head(data)
        request = self._request
        if request is not None and not self._is_refusing:
            behind = data
            if not request.is_complete:
                body, behind = data[: self._body_left_bytes], data[self._body_left_bytes :]
                self._body_left_bytes -= len(body)
                self._feed(body)
            if behind:
                self._pend(behind)
        if not self._is_refusing and (error := self._excess()) is not None:
            self._refuse(error)

    def _parse_head(self, data: bytes) -> bytes:
        """Feed the parser to the end of a head, so that errors behind it are the body's. Return what is behind it."""
        if not self._stage_bytes:
            data = data.lstrip(b"\r\n")  # empty lines before a request
            self._stage_started = self._loop.time()
        found = (self._head_end + data).find(b"\r\n\r\n")
        end = found + 4 - len(self._head_end) if found >= 0 else len(data)
        self._feed(data[:end])
        return data[end:]

    def _feed(self, data: bytes) -> None:
        self._stage_bytes += len(data)
        assert self._parser is not None
        try:
            messages, _, _ = self._parser.feed_data(data)
        except (HttpProcessingError, ValueError) as error:
            self._refuse(malformed() if self._request is not None else from_parse_error(error))
            return
        if messages:
            [(message, content)] = messages
            self._begin(message, content)
        elif self._request is None:
            self._fields += data.count(b"\n")
            self._head_end = (self._head_end + data)[-3:]

    def _begin(self, message: RawRequestMessage, content: StreamReader) -> None:
        """Have the request answered whose head was parsed."""
        self._stage_started, self._stage_bytes = self._loop.time(), 0
        self._head_end, self._fields = b"", len(message.raw_headers)
        try:
            request = parse_request(message, content, self.peer, self.response.send_continue)
        except BadRequest as error:
            self._is_refusing = True
            request = Request(message.method, "", [], {}, self.peer, content, error=error)
        self._is_upgrade = message.upgrade
        self._body_left_bytes = UNLIMITED if message.chunked else (request.length or 0)
        self._answer(request)

    def _answer(self, request: Request) -> None:
        self._request = request
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _refuse(self, error: BadRequest) -> None:
        """Refuse the request being received, and read nothing after it."""
        self._is_refusing = True
        if self._request is not None:
            self._request.content.set_exception(error)
        else:
            self._answer(Request("", "", [], {}, self.peer, error=error))

    def _pend(self, data: bytes) -> None:
        """Keep what comes behind the request in progress."""
        self._pending += data
        if len(self._pending) > MAX_PENDING_BYTES and not self._buffer_paused:
            self._pause_reading_for_buffer()

    def _excess(self) -> BadRequest | None:
        """Return why the request is too large, or takes more memory than its client may have."""
        request, size_bytes = self._request, self._stage_bytes + len(self._pending)
        if request is None:
            if self._stage_bytes > 2 * MAX_HEAD_BYTES:
                return head_too_large()
        elif request.is_complete:
            if size_bytes <= UNCOUNTED_BYTES:
                return None
        elif self._stage_bytes - 9 * request.content.total_bytes > OVERHEAD_BYTES:
            return malformed()
        if not self._may_hold(size_bytes + FIELD_BYTES * self._fields):
            return BadRequest(503, "Too many bytes of requests are in memory.")
        return None

    def _may_hold(self, size_bytes: int) -> bool:
        """Whether the client may have so many bytes here: of a request, or of a response that it does not read."""
        more_bytes = size_bytes - self._held_bytes
        if more_bytes > 0:
            if not self._server.memory.take(self.client, more_bytes):
                return False
            self._held_bytes = size_bytes
        return True

    def _release_memory(self) -> None:
        if self._held_bytes:
            self._server.memory.give_back(self.client, self._held_bytes)
            self._held_bytes = 0

    # answering

    async def start(self) -> None:
        """Answer the requests of this connection, one after the other; aiohttp runs it as the connection's task."""
        while await self._answer_next():
            pass
        self._finish()

    async def _answer_next(self) -> bool:
        """Whether the connection can take another request."""
        if self._request is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        request, response = self._request, self.response
        assert request is not None
        response.reset(request)
        try:
            await self._server.handle(request, response)
            if not response.has_ended:
                response.abort()
            if response.closes or self._is_refusing:
                return False
            while not request.is_complete:
                await request.content.readany()
            await self.drain()  # responses would pile up
        except (BadRequest, ClientDisconnected, ConnectionError):
            return False
        except Exception:
            log.exception("request handler failed")
            response.abort()
            return False
        return self._go_on()

    def _go_on(self) -> bool:
        """Parse what waits behind the answered request. False if there is nothing and the server is draining."""
        assert self._parser is not None
        pending, self._pending = self._pending, b""
        if self._is_upgrade:
            self._parser.set_upgraded(True)  # it returns what is behind an ignored offer of another protocol
            pending = self._parser.feed_data(b"")[2] + pending
            self._parser = self._create_parser()  # the old one keeps trailers and pauses
        else:
            self._parser.message_consumed()
        self._request = None
        self._release_memory()
        self._stage_started, self._stage_bytes, self._fields = self._loop.time(), 0, 0
        self._receive(pending)
        if self._buffer_paused:
            self._resume_reading_for_buffer()
        self._pipelined = self._pipelined + 1 if self._request is not None else 0
        return self._request is not None or not self._server.is_draining

    def _finish(self) -> None:
        """Close after the last response. Input that was not read would reset the connection and lose the response."""
        request, self._request = self._request, None
        if not self._paused:  # a response that is not read keeps its share
            self._release_memory()
        if self._tcp.is_closing():
            return
        self._stage_started, self._stage_bytes = self._loop.time(), 0
        if self._pending or self._is_refusing or request is None or not request.is_complete:
            self._lingers, self._pending = True, b""
            self._tcp.write_eof()
            if self._reading_paused or self._buffer_paused:
                self._tcp.resume_reading()
        else:
            self._tcp.close()

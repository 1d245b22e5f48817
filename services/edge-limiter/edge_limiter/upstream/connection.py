"""One kept connection to an upstream: writes one request at a time and reads its answer through llhttp.

Refuses what could make two answers out of one, or one out of two: doubtful framing, a head past its limits, bytes
that nobody asked for. Such a connection is never used again.
"""

import asyncio
from collections.abc import AsyncIterable, Callable
from typing import Final, cast

import httptools

from edge_limiter.body import BodyBuffer
from edge_limiter.upstream.exchange import BadGateway, Body, Headers, UpstreamLate
from edge_limiter.upstream.response import UpstreamAnswer
from edge_limiter.wire import LAST_CHUNK, chunk

MAX_HEAD_BYTES: Final = 64 << 10
MAX_HEADERS: Final = 200
MAX_INTERIM: Final = 16
MAX_AHEAD_BYTES: Final = 2 * MAX_HEAD_BYTES
"""What may come before a head is whole, interim answers included: the parser keeps a line until it ends."""
CONTINUE_S: Final = 1.0


class Stale(Exception):
    """The connection ended before a byte of the answer came."""


class UpstreamConnection(asyncio.Protocol):
    """`on_close` hears once that the connection is gone."""

    def __init__(self, idle_s: float, on_close: Callable[["UpstreamConnection"], None]) -> None:
        self._idle_s = idle_s
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[UpstreamAnswer] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._withheld: tuple[Body, bool] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self.idle_since = self.lives_until = 0.0
        self._begin("GET")

    @property
    def is_usable(self) -> bool:
        """Whether another request may be written."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_withholding(self) -> bool:
        """Whether nothing of the request's body has left, so that nobody can have acted upon the request."""
        return self._withheld is not None

    def send(
        self, method: str, head: bytes, body: Body, chunked: bool = False, asks: bool = False
    ) -> asyncio.Future[UpstreamAnswer]:
        """Send a request; the future is the head of its answer. It raises Stale, BadGateway, UpstreamLate, or what
        `body` raises; after that, or when nobody waits for it any more, the connection must be aborted.

        When it `asks`, by `Expect: 100-continue` in its head, the body is withheld until the upstream says that it
        reads, or nothing for a second (RFC 9110, 10.1.1).
        """
        assert self._transport is not None
        self._begin(method)
        answered: asyncio.Future[UpstreamAnswer] = self._loop.create_future()
        self._answered = answered
        if isinstance(body, bytes) and not asks:
            self._transport.write(head + body if body else head)
            return answered
        self._transport.write(head)
        self._withheld = body, chunked
        if asks:
            self._patience = self._loop.call_later(CONTINUE_S, self._send_body)
        else:
            self._send_body()
        return answered

    def give_up(self) -> None:
        """The deadline has passed."""
        self._fail(UpstreamLate("no answer before the deadline"))

    def leave(self) -> bool:
        """The answer is done with. True when the connection can take another request; else it is closed."""
        answered, self._answered = self._answered, None
        sent = self._withheld is None and (self._sender is None or self._sender.done())
        self._sender_end()
        unread = self._body is not None and self._body.is_held
        if answered is not None and self._is_done and self._keeps_alive and sent and not unread and self.is_usable:
            return True
        self.abort()
        return False

    def abort(self) -> None:
        self._sender_end()
        if self._transport is not None:
            self._transport.abort()

    def _begin(self, method: str) -> None:
        self._method = method
        self._headers: Headers = []
        self._head_bytes = self._heard_bytes = self._interims = 0
        self._body: BodyBuffer | None = None
        self._withheld = None
        self._is_until_close = self._is_done = self._keeps_alive = False

    def _sender_end(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None

    def _send_body(self) -> None:
        if self._withheld is None or self._transport is None:
            return
        (body, chunked), self._withheld = self._withheld, None
        if isinstance(body, bytes):
            self._transport.write(body)
        else:
            self._sender = self._loop.create_task(self._send_pieces(body, chunked))
            self._sender.add_done_callback(self._on_sent)

    async def _send_pieces(self, body: AsyncIterable[bytes], chunked: bool) -> None:
        assert self._transport is not None
        async for piece in body:
            self._transport.write(chunk(piece) if chunked else piece)
            if self._writable is not None:
                await self._writable
        if chunked:
            self._transport.write(LAST_CHUNK)

    def _on_sent(self, sender: "asyncio.Task[None]") -> None:
        if not sender.cancelled() and (error := sender.exception()) is not None:
            self._fail(error if isinstance(error, Exception) else BadGateway("not sent"))
            self.abort()

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
        if self._body is not None:
            self._body.fail(error)

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._answered is None or self._is_done:
            self.abort()  # nobody asked for this
            return
        self._heard_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse("an upgrade that nobody asked for")
        except httptools.HttpParserError:
            self._refuse("malformed answer")
        if self._body is None and self._heard_bytes > MAX_AHEAD_BYTES:
            self._refuse("head too large")
        if self._is_done and self._method == "HEAD":
            self._parser = httptools.HttpResponseParser(self)  # the old one waits for the body that HEAD does not have

    def _refuse(self, reason: str) -> None:
        self._keeps_alive = False
        self._fail(BadGateway(reason))
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        if self._is_until_close and error is None and self._body is not None:
            self._is_done = True
            self._body.finish()
        elif self._answered is not None and not self._heard_bytes:
            self._fail(Stale())
        else:
            self._fail(BadGateway("the connection broke off"))
        self.resume_writing()
        self._transport = None
        self._on_close(self)

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    # what the parser calls; an exception ends the connection through `_refuse`

    def on_message_begin(self) -> None:
        if self._is_done:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > MAX_HEAD_BYTES or len(self._headers) >= MAX_HEADERS:
            raise ValueError("head too large")
        if self._body is None:  # else it is a trailer, which ends here
            self._headers.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._interims += 1
            if status == 101 or status < 100 or self._interims > MAX_INTERIM:
                raise ValueError("unexpected interim answer")
            if status == 100:
                self._send_body()
            return
        length, self._is_until_close = framing(status, self._method, self._headers)
        self._body = BodyBuffer(self._hold, self._release)
        if self._method == "HEAD":
            self.on_message_complete()
        assert self._answered is not None
        if not self._answered.done():
            self._answered.set_result(UpstreamAnswer(status, self._headers, length, self._body, self._idle_s))

    def on_body(self, piece: bytes) -> None:
        if self._is_done or self._body is None:
            raise ValueError("a body that has no place")
        self._body.feed(piece)

    def on_message_complete(self) -> None:
        if self._body is None:  # of an interim answer
            self._headers = []
        elif not self._is_done:
            self._is_done = True
            self._keeps_alive = self._parser.should_keep_alive() and not self._is_until_close
            self._body.finish()

    def _hold(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def _release(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()


def framing(status: int, method: str, headers: Headers) -> tuple[int | None, bool]:
    """The declared length, and whether only the end of the connection ends the body. Raises ValueError if in doubt."""
    length, coded = None, False
    for name, value in headers:
        low = name.lower()
        if low == "content-length":
            if length is not None or not (value.isascii() and value.isdigit()):
                raise ValueError("doubtful length")
            length = int(value)
        elif low == "transfer-encoding":
            if coded or value.lower() != "chunked":
                raise ValueError("doubtful encoding")
            coded = True
    if length is not None and coded:
        raise ValueError("both a length and an encoding")
    bodiless = method == "HEAD" or status in (204, 304)
    return length, length is None and not coded and not bodiless

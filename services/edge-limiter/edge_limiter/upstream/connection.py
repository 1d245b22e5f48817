"""One pooled connection to an upstream: writes a request and parses its response with llhttp.

Rejects anything that could turn one response into two or two into one: ambiguous framing, an oversized head, bytes
outside a response. Such a connection is never used again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final, Self, cast

import httptools

from edge_limiter.upstream.errors import BadGateway, UpstreamTimeout

MAX_HEAD_BYTES: Final = 64 << 10
MAX_HEADERS: Final = 200
MAX_BYTES_BEFORE_BODY: Final = 2 * MAX_HEAD_BYTES
"""Bounds interim responses and unfinished lines, which the parser buffers."""
MAX_READ_BYTES: Final = 16 << 20
HIGH_WATER_BYTES: Final = 64 << 10
CONTINUE_TIMEOUT_S: Final = 1.0

Headers = list[tuple[str, str]]


class ConnectionClosed(Exception):
    """The connection ended before the first byte of a response."""


@dataclass(slots=True, eq=False)
class UpstreamResponse:
    """The head of a response, and its body as the upstream encoded it.

    Use it as a context manager. Leaving the block returns the connection to the pool, or closes it if the body was not
    read to its end.
    """

    status: int
    headers: Headers
    length: int | None
    """Content-Length; None for a chunked body, or one that ends with the connection."""
    _transport: asyncio.Transport
    _idle_timeout_s: float
    on_release: Callable[[], None] = field(init=False)
    _chunks: list[bytes] = field(default_factory=list, init=False)
    _buffered_bytes: int = field(default=0, init=False)
    _is_complete: bool = field(default=False, init=False)
    _error: Exception | None = field(default=None, init=False)
    _waiter: asyncio.Future[None] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.on_release()

    @property
    def was_read(self) -> bool:
        """Whether the body was read to its end."""
        return self._is_complete and not self._chunks

    async def read(self) -> bytes:
        """Return the whole body. Raises UpstreamError, also for a body over MAX_READ_BYTES."""
        if self._is_complete:
            return self._take()
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > MAX_READ_BYTES:
                raise BadGateway("the body is too large to buffer")
        return bytes(body)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises UpstreamError."""
        while not self.was_read:
            if self._chunks:
                yield self._take()
            elif self._error is not None:
                raise self._error
            else:
                await self._wait()

    def end(self) -> None:
        """End the body after the bytes received so far; later bytes and errors are ignored."""
        if self._error is None:
            self._is_complete = True
            self._wake()

    def feed(self, data: bytes) -> None:
        """Buffer a part of the body. Over HIGH_WATER_BYTES, reading pauses until the caller takes them."""
        if not self._is_complete:
            self._chunks.append(data)
            self._buffered_bytes += len(data)
            if self._buffered_bytes > HIGH_WATER_BYTES:
                self._transport.pause_reading()
            self._wake()

    def fail(self, error: Exception) -> None:
        """Raise `error` in the caller once it has taken the bytes received so far."""
        if not self._is_complete:
            self._error = error
            self._wake()

    def _take(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._buffered_bytes = 0
        if len(data) > HIGH_WATER_BYTES:
            self._transport.resume_reading()
        return data

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                await self._waiter
        except TimeoutError as error:
            raise UpstreamTimeout("the body stalled") from error
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class UpstreamConnection(asyncio.Protocol):
    """Carries one request at a time. `idle_since` and `expires_at` belong to the pool."""

    def __init__(self, idle_timeout_s: float, expires_at: float) -> None:
        self.idle_since = 0.0
        self.expires_at = expires_at
        self._idle_timeout_s = idle_timeout_s
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._head: asyncio.Future[UpstreamResponse] | None = None
        self._reset("GET")

    def _reset(self, method: str) -> None:
        self._method = method
        self._headers: Headers = []
        self._header_bytes = self._received_bytes = 0
        self._response: UpstreamResponse | None = None
        self._withheld = b""  # a body that waits for `100 Continue`
        self._ends_with_connection = self._is_complete = self._keeps_alive = False
        self.body_is_unsent = True
        """While true, the upstream cannot have acted on the request."""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(
        self, method: str, head: bytes, body: bytes, *, expects_continue: bool = False
    ) -> asyncio.Future[UpstreamResponse]:
        """Send a request; `head` lacks the empty line. Raises ConnectionClosed.

        The future fails with ConnectionClosed or UpstreamError. Abort the connection after that, or when giving up.

        With `expects_continue`, the body is sent after `100 Continue`, or after CONTINUE_TIMEOUT_S because a server may
        ignore the expectation (RFC 9110, 10.1.1).
        """
        self._reset(method)
        if self._transport is None:
            raise ConnectionClosed
        self._head = self._loop.create_future()
        if expects_continue:
            self._withheld = body
            self._transport.write(head + b"Expect: 100-continue\r\n\r\n")
            self._loop.call_later(CONTINUE_TIMEOUT_S, self._send_withheld)
        else:
            self.body_is_unsent = False
            self._transport.write(b"%b\r\n%b" % (head, body))
        return self._head

    def _send_withheld(self) -> None:
        if self._withheld and self._transport is not None:
            self._transport.write(self._withheld)
            self._withheld, self.body_is_unsent = b"", False

    def on_deadline(self) -> None:
        """Fail the request: its time is up."""
        self._fail(UpstreamTimeout("no response before the deadline"))

    def release(self) -> bool:
        """End the exchange. Return True if the connection can carry another request; otherwise close it."""
        self._head = None
        is_read = self._response is not None and self._response.was_read
        if self._is_complete and self._keeps_alive and is_read and self.is_open and not self.body_is_unsent:
            return True
        self.abort()
        return False

    def abort(self) -> None:
        """Close the connection at once, and stop sending."""
        self._withheld = b""
        if self._transport is not None:
            self._transport.abort()

    def _fail(self, error: Exception) -> None:
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        self._head = None
        if self._response is not None:
            self._response.fail(error)

    def _reject(self, reason: str) -> None:
        self._fail(BadGateway(reason))
        self.abort()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._head is None or self._is_complete:
            self.abort()  # no request is waiting for these bytes
            return
        self._received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._reject("unexpected upgrade")
        except httptools.HttpParserError:
            self._reject("malformed response")
        if self._response is None and self._received_bytes > MAX_BYTES_BEFORE_BODY:
            self._reject("response head too large")
        if self._is_complete and self._method == "HEAD":
            self._parser = httptools.HttpResponseParser(self)  # the old one expects a body of Content-Length bytes

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._ends_with_connection and error is None and self._response is not None:
            self._is_complete = True
            self._response.end()
        else:
            self._fail(BadGateway("the connection broke") if self._received_bytes else ConnectionClosed())

    # httptools callbacks; the parser turns their exceptions into HttpParserError

    def on_message_begin(self) -> None:
        if self._is_complete:
            raise ValueError("a second response")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > MAX_HEAD_BYTES or len(self._headers) >= MAX_HEADERS:
            raise ValueError("response head too large")
        if self._response is None:  # otherwise a trailer, which is dropped
            self._headers.append((name.decode("latin-1"), value.decode("latin-1").strip(" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            if status == 101 or status < 100:
                raise ValueError("unexpected interim response")
            if status == 100:
                self._send_withheld()
            return
        assert self._transport is not None and self._head is not None
        length, self._ends_with_connection = response_framing(status, self._method, self._headers)
        self._response = UpstreamResponse(status, self._headers, length, self._transport, self._idle_timeout_s)
        if self._method == "HEAD":
            self.on_message_complete()
        if not self._head.done():
            self._head.set_result(self._response)

    def on_body(self, data: bytes) -> None:
        if self._is_complete or self._response is None:
            raise ValueError("a body outside a response")
        self._response.feed(data)

    def on_message_complete(self) -> None:
        if self._response is None:  # an interim response
            self._headers = []
        elif not self._is_complete:
            self._is_complete = True
            self._keeps_alive = self._parser.should_keep_alive() and not self._ends_with_connection
            self._response.end()


def request_head(method: str, target: str, host: str, headers: Headers, framing: str) -> bytes:
    """Encode a request head without its final empty line. `framing` is a complete header line, or empty."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}{framing}".encode("latin-1")


def response_framing(status: int, method: str, headers: Headers) -> tuple[int | None, bool]:
    """Return the declared length, and whether the body ends with the connection. Raises ValueError if ambiguous."""
    length, is_chunked = None, False
    for name, value in headers:
        match name.lower():
            case "content-length":
                if length is not None or not (value.isascii() and value.isdigit()):
                    raise ValueError("ambiguous length")
                length = int(value)
            case "transfer-encoding":
                if is_chunked or value.lower() != "chunked":
                    raise ValueError("unsupported transfer encoding")
                is_chunked = True
    if length is not None and is_chunked:
        raise ValueError("both Content-Length and Transfer-Encoding")
    has_no_body = method == "HEAD" or status in (204, 304)
    return length, length is None and not is_chunked and not has_no_body

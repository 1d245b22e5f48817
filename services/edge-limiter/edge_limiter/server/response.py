"""Writes responses on one client connection: whole in one write, or chunk by chunk."""

import functools
import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from edge_limiter.server.request import ClientDisconnected, Headers, Request

if TYPE_CHECKING:
    from edge_limiter.server.connection import ClientConnection

_BODILESS: Final = frozenset({204, 304})
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class ResponseWriter:
    """One response at a time: `send`, or `start`, `write` and `end`."""

    def __init__(self, connection: "ClientConnection") -> None:
        self._connection: ClientConnection | None = connection
        self._request: Request | None = None
        self._on_shutdown: Callable[[], None] | None = None
        self._is_chunked = self.has_started = self.has_ended = self.closes = False

    def reset(self, request: Request) -> None:
        """Prepare for the response to `request`."""
        self._request = request
        self._on_shutdown = None
        self.has_started = self.has_ended = self.closes = False

    def detach(self) -> None:
        """Forget the lost connection; later writes are discarded or raise ClientDisconnected."""
        self._connection = self._request = self._on_shutdown = None

    def send_continue(self) -> None:
        """Ask a client that expects it for the body. HTTP/1.0 has no interim responses."""
        if self._request is not None and not self.has_started and not self._request.is_http10:
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def send(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        *,
        rendered: str = "",
        length: int | None = None,
        close: bool = False,
    ) -> None:
        """Send a whole response. `rendered` holds further header lines. `length` replaces the body's where the
        response has none (HEAD, 304).
        """
        self.closes = close or not self._can_keep_alive()
        is_head = self._request is not None and self._request.method == "HEAD"
        if length is None and (body or not (is_head or status == 304)):
            length = len(body)
        framing = "" if length is None or status == 204 else f"Content-Length: {length}\r\n"
        head = self._render(status, headers, framing + rendered)
        self.has_started = self.has_ended = True
        self._write(head if is_head or status in _BODILESS else head + body)

    def start(self, status: int, headers: Headers, length: int | None) -> None:
        """Send the head of a response whose body follows in chunks; `length` is None if it is not known."""
        is_http10 = self._request is not None and self._request.is_http10
        self._is_chunked = length is None and not is_http10
        self.closes = (length is None and is_http10) or not self._can_keep_alive()
        framing = "Transfer-Encoding: chunked\r\n" if self._is_chunked else ""
        if length is not None:
            framing = f"Content-Length: {length}\r\n"
        self.has_started = True
        self._write(self._render(status, headers, framing))

    async def write(self, chunk: bytes) -> None:
        """Send a piece of the body and wait until the client has read enough. Raises ClientDisconnected."""
        if self._connection is None:
            raise ClientDisconnected
        self._write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._is_chunked else chunk)
        await self._connection.drain()

    def end(self) -> None:
        """Complete the body."""
        if self._is_chunked:
            self._write(b"0\r\n\r\n")
        self.has_ended, self._on_shutdown = True, None

    def abort(self) -> None:
        """Cut the connection, so that the client cannot take the response for a complete one."""
        self.closes, self._on_shutdown = True, None
        if self._connection is not None:
            self._connection.abort()

    def end_on_shutdown(self, finish: Callable[[], None]) -> None:
        """Call `finish` when the server drains, for a response that never ends by itself."""
        self._on_shutdown = finish

    def start_draining(self) -> None:
        if self._on_shutdown is not None:
            self._on_shutdown()

    def _can_keep_alive(self) -> bool:
        return self._connection is not None and self._connection.can_keep_alive()

    def _render(self, status: int, headers: Headers, lines: str) -> bytes:
        status_line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n"
        named = "".join([f"{name}: {value}\r\n" for name, value in headers])
        close = "Connection: close\r\n" if self.closes else ""
        return f"{status_line}{named}{lines}{close}\r\n".encode("latin-1")

    def _write(self, data: bytes) -> None:
        if self._connection is not None:  # uvloop raises RuntimeError on a closed transport
            self._connection.write(data)


def date_header() -> tuple[str, str]:
    """Return the Date header, rendered once a second."""
    return _date(int(time.time()))


@functools.lru_cache(1)
def _date(second: int) -> tuple[str, str]:
    return "Date", formatdate(second, usegmt=True)

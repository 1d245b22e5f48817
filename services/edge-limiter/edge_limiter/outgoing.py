"""What goes out on one client connection: whole answers in one write, the others piece by piece."""

import asyncio
from collections.abc import Callable
from typing import Final

from edge_limiter.body import ClientGone
from edge_limiter.request import Request
from edge_limiter.upstream.headers import Headers
from edge_limiter.wire import CONTINUE, LAST_CHUNK, chunk, response_head

_BODILESS: Final = frozenset({204, 304})


class Outgoing:
    """One answer at a time: `send`, or `begin`, `write` and `end`. `may_keep` says whether the connection stays."""

    def __init__(self, transport: asyncio.Transport, may_keep: Callable[[], bool]) -> None:
        self._transport = transport
        self._may_keep = may_keep
        self._writable: asyncio.Future[None] | None = None
        self._is_head = self._is_1_0 = self._is_chunked = False
        self.has_begun = self.has_ended = self.closes = False
        self._finish: Callable[[], None] | None = None
        self._is_for_nobody = False
        self.bytes = 0

    def start(self, request: Request) -> None:
        """The next answer is for this request."""
        self._is_head = request.method == "HEAD"
        self._is_1_0 = request.is_1_0
        self.has_begun = self.has_ended = self.closes = False

    def go_on(self) -> None:
        """Tell a client that waits for it to send its body now. One of HTTP/1.0 would take it for the answer."""
        if not self.has_begun and not self._is_1_0:
            self._write(CONTINUE)

    def send(
        self,
        status: int,
        headers: Headers,
        body: bytes,
        *,
        lines: str = "",
        length: int | None = None,
        close: bool = False,
    ) -> None:
        """A whole answer. `lines` are whole header lines, made before. `length` is told instead of the body's where
        there is none (HEAD, 304), if it is known.
        """
        self.closes = close or not self._may_keep()
        framing = f"{lines}Connection: close\r\n" if self.closes else lines
        if length is None and (body or not (self._is_head or status == 304)):
            length = len(body)
        if length is not None and status != 204:
            framing = f"Content-Length: {length}\r\n{framing}"
        head = response_head(status, headers, framing)
        self.has_begun = self.has_ended = True
        self._write(head if self._is_head or status in _BODILESS else head + body)

    def repeat(self, whole: bytes) -> None:
        """A whole answer, head and body, to a request that needed no reading. The connection stays."""
        self._write(whole)

    def begin(self, status: int, headers: Headers, length: int | None) -> None:
        """The head of an answer whose body follows in pieces, `length` bytes if that is known."""
        self._is_chunked = length is None and not self._is_1_0
        self.closes = not self._may_keep() or (length is None and self._is_1_0)
        framing = "Connection: close\r\n" if self.closes else ""
        if length is not None:
            framing = f"Content-Length: {length}\r\n{framing}"
        elif self._is_chunked:
            framing = f"Transfer-Encoding: chunked\r\n{framing}"
        self.has_begun = True
        self._write(response_head(status, headers, framing))

    def until_goodbye(self, finish: Callable[[], None]) -> None:
        """This answer has no end of its own: when the service stops, `finish` makes whoever writes it come to one."""
        self._finish = finish

    def start_draining(self) -> None:
        """The service stops."""
        if self._finish is not None:
            self._finish()

    async def write(self, piece: bytes) -> None:
        """Returns when the client has taken enough of what was written before. Raises ClientGone."""
        if self._is_for_nobody:
            raise ClientGone
        self._write(chunk(piece) if self._is_chunked else piece)
        if self._writable is not None:
            await self._writable

    def end(self) -> None:
        if self._is_chunked:
            self._write(LAST_CHUNK)
        self.has_ended, self._finish = True, None

    def cut(self) -> None:
        """Break the answer off, so that nobody takes it for a whole one."""
        self.closes, self._finish = True, None
        self._transport.abort()

    def pause(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def forget(self) -> None:
        """The client has gone: what is still written is for nobody, and uvloop would raise RuntimeError for it."""
        self._is_for_nobody = True
        self._may_keep = _never
        self.resume()

    def _write(self, data: bytes) -> None:
        if self._is_for_nobody:
            return
        self.bytes += len(data)
        self._transport.write(data)


def _never() -> bool:
    return False

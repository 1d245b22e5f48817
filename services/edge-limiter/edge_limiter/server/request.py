"""One request as the server parsed it: its validated head, and its body as it arrives."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from aiohttp import StreamReader
from aiohttp.streams import EMPTY_PAYLOAD

from edge_limiter.server.validation import BadRequest, Headers

DRAIN_BYTES: Final = 64 << 10
"""The rest of a refused request's body is read if it has a declared length up to this: the connection is reused."""


class BodyTooLarge(Exception):
    """The body is longer than its reader allows."""


class ClientDisconnected(Exception):
    """The client closed the connection before the request or its response was complete."""


class Request:
    """`fields` has lower-case names, repeated lines joined. `error` is set if the server refuses the request.

    `on_first_wait` is called once, when a reader first has to wait for the body.
    """

    __slots__ = (
        "_body",
        "content",
        "error",
        "fields",
        "headers",
        "is_http10",
        "keep_alive",
        "length",
        "method",
        "on_first_wait",
        "peer",
        "target",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: Headers,
        fields: Mapping[str, str],
        peer: str,
        content: StreamReader = EMPTY_PAYLOAD,
        *,
        is_http10: bool = False,
        keep_alive: bool = False,
        error: BadRequest | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.fields = fields
        self.peer = peer
        self.content = content
        self.is_http10 = is_http10
        self.keep_alive = keep_alive and not is_http10
        self.error = error
        self.on_first_wait: Callable[[], None] | None = None
        length = fields.get("content-length")
        self.length = int(length) if length is not None and length.isdigit() else None
        self._body: bytes | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the whole body has arrived."""
        return self.content.is_eof()

    @property
    def is_drainable(self) -> bool:
        """Whether the rest of the body is short enough to be read and discarded."""
        if self.content.is_eof():
            return True
        return self.length is not None and self.length <= DRAIN_BYTES and "expect" not in self.fields

    async def read(self, max_bytes: int) -> bytes:
        """Return the whole body, also when called again. Raises BodyTooLarge, BadRequest, ClientDisconnected."""
        if self._body is None:
            if self.content.is_eof():
                body = self.content.read_nowait()
                if len(body) > max_bytes:
                    raise BodyTooLarge
            else:
                body = b"".join([chunk async for chunk in self.chunks(max_bytes)])
            self._body = body
        return self._body

    async def chunks(self, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield the body as it arrives. Raises as `read` does."""
        if self.on_first_wait is not None and not self.content.is_eof():
            self.on_first_wait()
            self.on_first_wait = None
        left_bytes = max_bytes
        while chunk := await self.content.readany():
            left_bytes -= len(chunk)
            if left_bytes < 0:
                raise BodyTooLarge
            yield chunk

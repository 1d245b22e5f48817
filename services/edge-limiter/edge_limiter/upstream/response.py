"""The answer of an upstream as its connection receives it: the head, and the body whole or in pieces."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, Self

from edge_limiter.body import BodyBuffer
from edge_limiter.upstream.exchange import BadGateway, Headers, UpstreamLate

MAX_READ_BYTES: Final = 16 << 20


class UpstreamAnswer:
    """An `Answer` of the exchange port."""

    __slots__ = ("_idle_s", "body", "headers", "length", "on_leave", "status")

    on_leave: Callable[[], None]
    """Hears when nobody wants more of it."""

    def __init__(
        self,
        status: int,
        headers: Headers,
        length: int | None,
        body: BodyBuffer,
        idle_s: float,
    ) -> None:
        self.status = status
        self.headers = headers
        self.length = length
        self.body = body
        self._idle_s = idle_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.on_leave()

    async def read(self) -> bytes:
        if self.body.is_complete:
            return self.body.taken(MAX_READ_BYTES)
        pieces, size = [], 0
        async for piece in self.chunks():
            size += len(piece)
            if size > MAX_READ_BYTES:
                raise BadGateway("too much to read at once")
            pieces.append(piece)
        return b"".join(pieces)

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._idle_s):
                    piece = await self.body.piece()
            except TimeoutError as error:
                raise UpstreamLate("the body stopped coming") from error
            if not piece:
                return
            yield piece

    def end(self) -> None:
        self.body.finish()

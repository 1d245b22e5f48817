"""Moves bodies between client and upstream: small ones whole, others as they come, never past the size limit."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import hdrs, web
from multidict import CIMultiDict

from common.problems import Problem
from edge_limiter.exchange import Answer, Body, ExchangeError, Headers

WHOLE_BYTES: Final = 64 << 10
"""Bodies up to this size are read before they are sent on: one write, and no half-used upstream connection."""

TOO_LARGE: Final = "The body is larger than this service takes."


async def continue_if_expected(request: web.Request) -> None:
    """Tell a client that waits for it to send its body now: only once the request has passed the limit."""
    if hdrs.EXPECT in request.headers:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun yet


async def read_whole(request: web.Request, timeout_s: float) -> bytes:
    """The whole body. Raises Problem 413 past the size limit (by aiohttp) and 408 when it does not come in time."""
    if request.content.is_eof():  # it came with the head: nothing to wait for
        return await request.read()
    await continue_if_expected(request)
    try:
        async with asyncio.timeout(timeout_s):
            return await request.read()
    except TimeoutError:
        raise Problem(408, "The body did not arrive in time.", headers={"Connection": "close"}) from None


class BodyStream:
    """A request body passed on piece by piece. `too_large` tells why the upstream call broke off."""

    def __init__(self, request: web.Request, max_bytes: int) -> None:
        self._request = request
        self._left = max_bytes
        self.too_large = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        await continue_if_expected(self._request)
        async for piece in self._request.content.iter_any():
            self._left -= len(piece)
            if self._left < 0:
                self.too_large = True
                raise ValueError(TOO_LARGE)
            yield piece


async def request_body(request: web.Request, max_bytes: int, timeout_s: float) -> tuple[Body, Headers]:
    """The body to send on, and the header that frames it where the client itself cannot."""
    length = request.content_length
    if length is not None and length > max_bytes:
        raise Problem(413, TOO_LARGE, headers={"Connection": "close"})
    if not request.can_read_body:
        return b"", []
    if length is not None and length <= WHOLE_BYTES:
        return await read_whole(request, timeout_s), []
    return BodyStream(request, max_bytes), [] if length is None else [("Content-Length", str(length))]


async def send_answer(request: web.Request, answer: Answer, headers: Headers) -> web.StreamResponse:
    """Send an upstream's answer to the client. Raises ExchangeError only while nothing has been sent."""
    bodiless = request.method == "HEAD" or answer.status in (204, 304)
    if bodiless or (answer.length is not None and answer.length <= WHOLE_BYTES):
        return await _send_whole(answer, headers, bodiless)
    response = web.StreamResponse(status=answer.status, headers=CIMultiDict(headers))
    try:
        await response.prepare(request)
        async for chunk in answer.chunks():
            await response.write(chunk)
    except ExchangeError:
        _abort(request)  # the client must see that this is not the end of the body
    except ConnectionError:
        pass  # the client has gone; there is nobody to tell
    return response


async def _send_whole(answer: Answer, headers: Headers, bodiless: bool) -> web.Response:
    if bodiless:
        return web.Response(status=answer.status, headers=CIMultiDict(headers))
    body = await answer.read()
    kept = CIMultiDict((name, value) for name, value in headers if name.lower() != "content-length")
    return web.Response(status=answer.status, body=body, headers=kept)


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()

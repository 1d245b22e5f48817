"""Moves bodies between client and upstream: small ones whole, others as they come, never past the size limit."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from common.http.problems import Problem, unavailable
from edge_limiter.body import BodyTooLarge, NoRoom
from edge_limiter.outgoing import Outgoing
from edge_limiter.request import Request
from edge_limiter.upstream.connection import Body, UpstreamResponse
from edge_limiter.upstream.errors import UpstreamError
from edge_limiter.upstream.headers import Headers

WHOLE_BYTES: Final = 64 << 10
"""Bodies up to this size are read before they are sent on: one write, and no half-used upstream connection."""

_ROOM_RETRY_S: Final = 1.0

TOO_LARGE: Final = "The body is larger than this service takes."


async def read_whole(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body. Raises Problem 413 past the size limit, 408 when it does not come in time, 503 without room."""
    try:
        if request.body.is_complete:
            return request.body.taken(max_bytes)
        async with asyncio.timeout(timeout_s):
            return await request.body.whole(max_bytes)
    except BodyTooLarge:
        raise too_large() from None
    except NoRoom:
        raise no_room() from None
    except TimeoutError:
        raise Problem(408, "The body did not arrive in time.", headers={"Connection": "close"}) from None


async def request_body(request: Request, max_bytes: int, timeout_s: float) -> tuple[Body, Headers]:
    """The body to send on, and the header that frames it where the client itself cannot. Raises Problem, as above."""
    length = request.length
    if request.body.is_complete or (length is not None and length <= WHOLE_BYTES):
        return await read_whole(request, max_bytes, timeout_s), []
    return _bounded(request, max_bytes), [] if length is None else [("Content-Length", str(length))]


async def _bounded(request: Request, max_bytes: int) -> AsyncIterator[bytes]:
    left = max_bytes
    async for piece in request.body:
        left -= len(piece)
        if left < 0:
            raise BodyTooLarge
        yield piece


def refuse_length(request: Request, max_bytes: int) -> None:
    """Raise Problem 413 when the head says already that the body is too large."""
    if request.length is not None and request.length > max_bytes:
        raise too_large()


def no_room() -> Problem:
    return unavailable("Too many bytes of request bodies are in memory.", _ROOM_RETRY_S)


def too_large() -> Problem:
    return Problem(413, TOO_LARGE, headers={"Connection": "close"})


async def send_answer(out: Outgoing, method: str, answer: UpstreamResponse, headers: Headers) -> None:
    """Send an upstream's answer to the client. Raises UpstreamError only while nothing has been sent."""
    status, length = answer.status, answer.length
    if method == "HEAD" or status in (204, 304):
        out.send(status, headers, b"", length=length)
    elif length is not None and length <= WHOLE_BYTES:
        out.send(status, headers, await answer.read())
    else:
        out.begin(status, headers, length)
        if length is None and _is_event_stream(headers):
            out.until_goodbye(answer.end)
        try:
            async for piece in answer.chunks():
                await out.write(piece)
        except UpstreamError:
            out.cut()
            return
        out.end()


def _is_event_stream(headers: Headers) -> bool:
    """Such an answer ends anywhere: its reader drops an event that is not whole, and comes again."""
    return any(
        name.lower() == "content-type" and value.lower().startswith("text/event-stream") for name, value in headers
    )

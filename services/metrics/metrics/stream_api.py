"""GET /metrics/stream: live aggregates as server-sent events."""

import asyncio
from typing import Final

from aiohttp import hdrs, web

from common.contracts import Body, Window
from common.openapi import operation
from metrics.examples import EVENT
from metrics.resources import RESOURCES

STALL_S: Final = 30.0  # a reader that takes nothing for so long is given up


class StreamQuery(Body):
    """How far each aggregate looks back."""

    window: Window = "15m"


@operation(query=StreamQuery, errors=(503,), tag="metrics", media={"text/event-stream": EVENT})
async def stream_aggregates(request: web.Request, *, query: StreamQuery) -> web.StreamResponse:
    """Follow the aggregates of a window.

    Server-sent events named `aggregate`, each the body that POST /metrics/aggregated answers for the same window.
    Comments keep the connection alive while there is nothing to tell. It ends when the service stops.
    """
    with request.app[RESOURCES].live.following(query.window) as messages:
        response = web.StreamResponse(
            headers={
                hdrs.CONTENT_TYPE: "text/event-stream",
                hdrs.CACHE_CONTROL: "no-store",
                "X-Accel-Buffering": "no",
            }
        )
        await response.prepare(request)
        await _send(response, b"retry: 2000\n\n")
        async for message in messages:
            await _send(response, b": nothing new\n\n" if message is None else _event(message))
    return response


def _event(message: bytes) -> bytes:
    return b"event: aggregate\ndata: " + message + b"\n\n"


async def _send(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(STALL_S):
        await response.write(data)

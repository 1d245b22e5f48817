"""GET /metrics/stream: live aggregates as server-sent events."""

import asyncio
import ipaddress
from typing import Final

from aiohttp import hdrs, web

from common.contracts.windows import Body, Window
from common.http.openapi import operation
from metrics.api.examples import EVENT
from metrics.api.resources import RESOURCES

STALL_S: Final = 30.0  # a client that reads nothing for this long is disconnected
IPV6_PREFIX: Final = 64  # all addresses of a network count as one client


class StreamQuery(Body):
    """The window of each aggregate."""

    window: Window = "15m"


@operation(query=StreamQuery, errors=(429, 503), tag="metrics", media={"text/event-stream": EVENT})
async def stream_aggregates(request: web.Request, *, query: StreamQuery) -> web.StreamResponse:
    """Follow the aggregates of a window.

    Server-sent events named `aggregate`, each with the body of POST /metrics/aggregated for the same window.
    Comments keep an idle connection alive. The stream ends when the service stops. One client may open a tenth of
    all streams: 429 above that, 503 when all are in use.
    """
    with request.app[RESOURCES].live.following(query.window, client_of(request)) as messages:
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


def client_of(request: web.Request) -> str:
    """Return the client of a stream: the address sent by the edge, or the peer's. An IPv6 network is one client."""
    for told in (request.headers.get("X-Forwarded-For", ""), request.remote or ""):
        try:
            address = ipaddress.ip_address(told.rpartition(",")[2].strip())
        except ValueError:
            continue
        if isinstance(address, ipaddress.IPv6Address):
            return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address), IPV6_PREFIX), strict=False))
        return str(address)
    return "unknown"


def _event(message: bytes) -> bytes:
    return b"event: aggregate\ndata: " + message + b"\n\n"


async def _send(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(STALL_S):
        await response.write(data)

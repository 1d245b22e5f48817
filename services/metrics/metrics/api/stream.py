"""GET /metrics/stream: live aggregates as server-sent events."""

import asyncio
import ipaddress
from typing import Final

from aiohttp import hdrs, web

from common.contracts.windows import Body, Window
from common.http.openapi import operation
from metrics.api.examples import EVENT
from metrics.api.resources import RESOURCES

STALL_S: Final = 30.0  # a reader that takes nothing for so long is given up
IPV6_PREFIX: Final = 64  # one client has as many addresses as this leaves


class StreamQuery(Body):
    """How far each aggregate looks back."""

    window: Window = "15m"


@operation(query=StreamQuery, errors=(429, 503), tag="metrics", media={"text/event-stream": EVENT})
async def stream_aggregates(request: web.Request, *, query: StreamQuery) -> web.StreamResponse:
    """Follow the aggregates of a window.

    Server-sent events named `aggregate`, each the body that POST /metrics/aggregated answers for the same window.
    Comments keep the connection alive while there is nothing to tell. It ends when the service stops. One client may
    open a tenth of the streams that there are at most; 429 above that, 503 when all are taken.
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
    """Whose share a stream is of: the address that the edge names, or the peer's; an IPv6 network is one client."""
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

"""Forwards a request to its service once its body has arrived, and streams the response back."""

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from common.http.context import REQUEST_ID
from common.http.problems import Problem
from edge_limiter.proxy.admin import Admin
from edge_limiter.proxy.responses import upstream_problem
from edge_limiter.proxy.state import RequestState
from edge_limiter.server.request import Headers, Request
from edge_limiter.server.response import ResponseWriter
from edge_limiter.upstream.client import UpstreamClient
from edge_limiter.upstream.connection import UpstreamResponse
from edge_limiter.upstream.errors import UpstreamError

MAX_BODY_BYTES: Final = 1 << 20
"""The services have the same limit."""
WHOLE_BYTES: Final = 64 << 10
"""Responses up to this size are sent whole."""
VIA: Final = "1.1 sluice"
_HOP_BY_HOP: Final = frozenset(  # these end here in both directions (RFC 9110, 7.6.1)
    "connection http2-settings keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer "
    "transfer-encoding upgrade".split()
)
_SET_BY_PROXY: Final = frozenset(
    "content-length expect forwarded host traceparent x-forwarded-for x-forwarded-host x-forwarded-port "
    "x-forwarded-proto x-real-ip x-request-id x-request-timeout-ms".split()
)
_NOT_IN_REQUESTS: Final = _HOP_BY_HOP | _SET_BY_PROXY
_NOT_IN_RESPONSES: Final = _HOP_BY_HOP | {"content-length", "server", "x-request-id"}
_STANDARD_OPTIONS: Final = frozenset({"", "close", "keep-alive"})


@dataclass(frozen=True, slots=True)
class Forwarder:
    """`admin` recognises the admin token, which ends at the edge."""

    upstreams: Mapping[str, UpstreamClient]
    admin: Admin

    async def forward(self, state: RequestState) -> None:
        """Send the request upstream and its response to the client. Raises Problem only before the response began."""
        request, ctx = state.request, state.ctx
        body = await read_body(request, ctx.remaining_s(time.monotonic()))
        now = time.monotonic()
        headers = self._request_headers(state, now)
        client, target = self.upstreams[state.route.service], state.target.path_and_query
        try:
            with await client(request.method, target, headers, body, ctx.remaining_s(now)) as upstream:
                returned = forwardable_response_headers(upstream.headers)
                returned += (("Via", VIA), (REQUEST_ID, ctx.request_id))
                if not _is_limited_by_upstream(upstream):
                    returned += state.limit_headers
                await _send(state.response, request.method, upstream, returned)
                state.status = upstream.status
        except UpstreamError as error:
            raise upstream_problem(error, state.route.service) from error

    def _request_headers(self, state: RequestState, now: float) -> Headers:
        fields, client = state.request.fields, state.client
        headers = forwardable_request_headers(state.request.headers, fields.get("connection"))
        if "authorization" in fields and self.admin.holds(fields["authorization"]):
            headers = [pair for pair in headers if pair[0].lower() != "authorization"]
        proto = fields.get("x-forwarded-proto") if client.via_trusted_proxy else None
        headers += state.ctx.outgoing_headers(now).items()
        headers += (
            ("X-Forwarded-For", client.address),
            ("X-Forwarded-Proto", "https" if proto == "https" else "http"),
            ("X-Forwarded-Host", fields.get("host", "")),
            ("Via", VIA),
        )
        return headers


def _is_limited_by_upstream(upstream: UpstreamResponse) -> bool:
    """Whether the service refused the request by its own limit, so that the headers of that limit explain the 429."""
    return upstream.status == 429 and any(name.lower() == "ratelimit" for name, _ in upstream.headers)


async def read_body(request: Request, timeout_s: float) -> bytes:
    """Return the whole body. Raises BodyTooLarge, and Problem 408 if it does not arrive in time."""
    if request.is_complete:
        return await request.read(MAX_BODY_BYTES)
    try:
        async with asyncio.timeout(timeout_s):
            return await request.read(MAX_BODY_BYTES)
    except TimeoutError:
        raise Problem(408, "The body did not arrive in time.", headers={"Connection": "close"}) from None


async def _send(response: ResponseWriter, method: str, upstream: UpstreamResponse, headers: Headers) -> None:
    """Send an upstream's response. Raises UpstreamError only before the first byte."""
    status, length = upstream.status, upstream.length
    if method == "HEAD" or status in (204, 304):
        response.send(status, headers, b"", length=length)
        return
    if length is not None and length <= WHOLE_BYTES:
        response.send(status, headers, await upstream.read())
        return
    response.start(status, headers, length)
    if length is None and _is_event_stream(headers):
        response.end_on_shutdown(upstream.end)
    try:
        async for chunk in upstream.chunks():
            await response.write(chunk)
    except UpstreamError:
        response.abort()
    else:
        response.end()


def _is_event_stream(headers: Headers) -> bool:
    """Whether the response may end anywhere: clients of an event stream drop a partial event and reconnect."""
    return any(
        name.lower() == "content-type" and value.lower().startswith("text/event-stream") for name, value in headers
    )


def forwardable_request_headers(headers: Iterable[tuple[str, str]], connection: str | None) -> Headers:
    """Return the client's headers that may reach the upstream. `connection` is the value of its `Connection` header."""
    options = _connection_options(connection)
    excluded = _NOT_IN_REQUESTS | options if options else _NOT_IN_REQUESTS
    return [pair for pair in headers if pair[0].lower() not in excluded]


def forwardable_response_headers(headers: Iterable[tuple[str, str]]) -> Headers:
    """Return the upstream's headers that may reach the client. The server sets `Content-Length` itself."""
    forwardable: Headers = []
    connection = ""
    for pair in headers:
        name = pair[0].lower()
        if name not in _NOT_IN_RESPONSES:
            forwardable.append(pair)
        elif name == "connection":
            connection = f"{connection},{pair[1]}"
    options = _connection_options(connection)
    return [pair for pair in forwardable if pair[0].lower() not in options] if options else forwardable


def _connection_options(connection: str | None) -> frozenset[str]:
    """Return the lower-case names of the headers that a `Connection` header limits to one hop."""
    if not connection or connection.lower() in _STANDARD_OPTIONS:
        return frozenset()
    return frozenset(option.strip().lower() for option in connection.split(",")) - _STANDARD_OPTIONS

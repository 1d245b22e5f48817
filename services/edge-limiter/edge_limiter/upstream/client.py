"""HTTP/1.1 client for one upstream: pooled connections, bounded concurrency, no cookies, redirects or proxies.

A request is repeated only if the upstream cannot have acted on it: a GET or HEAD whose connection closed before the
response began, or any request whose body had not left. A server that shuts down resets connections it never accepted,
so the body for a new connection is withheld until `100 Continue` arrives. Other requests use a pooled connection only
while it cannot have been closed (SAFE_IDLE_S).
"""

import asyncio
import itertools
import random
import socket
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from common.http.server import LAME_DUCK_S
from edge_limiter.upstream.connection import (
    ConnectionClosed,
    Headers,
    UpstreamConnection,
    UpstreamResponse,
    request_head,
)
from edge_limiter.upstream.errors import BadGateway, UpstreamOverloaded, UpstreamTimeout

SAFE_IDLE_S: Final = LAME_DUCK_S / 2
"""A draining service sends `Connection: close` for LAME_DUCK_S before it closes idle connections; half is margin."""
MAX_IDLE_S: Final = 15.0
MAX_AGE_S: Final = 60.0  # so that a new replica gets its share
DNS_TTL_S: Final = 15.0
CONNECT_TIMEOUT_S: Final = 2.0
IDLE_TIMEOUT_S: Final = 60.0  # between two parts of a body
MAX_ATTEMPTS: Final = 3
_REPEATABLE: Final = frozenset({"GET", "HEAD"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})

Resolve = Callable[[str, int], Awaitable[list[str]]]


async def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a host name, or the address itself. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class UpstreamClient:
    """Calls one service. At most `max_in_flight` requests are in flight."""

    def __init__(
        self,
        origin: str,
        *,
        max_in_flight: int,
        observe: Callable[[float], None],
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        idle_timeout_s: float = IDLE_TIMEOUT_S,
        resolve: Resolve = resolve_host,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`observe` receives the seconds to each response. `clock` ages pooled connections and resolved addresses."""
        parts = urlsplit(origin)
        self._host = parts.hostname or ""
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        self._authority = parts.netloc
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._max_in_flight = max_in_flight
        self._observe = observe
        self._resolve = resolve
        self._clock = clock
        self._idle: deque[UpstreamConnection] = deque()
        self._addresses: list[str] = []
        self._addresses_expire_at = 0.0
        self._lookup = asyncio.Lock()
        self._dials = itertools.count()
        self.in_flight = 0

    def close(self) -> None:
        """Close idle connections. Requests in flight close theirs."""
        while self._idle:
            self._idle.popleft().abort()

    async def __call__(
        self, method: str, target: str, headers: Headers, body: bytes, timeout_s: float
    ) -> UpstreamResponse:
        """Return the response once its head has arrived, within `timeout_s`. Raises UpstreamError."""
        if self.in_flight >= self._max_in_flight:
            raise UpstreamOverloaded
        self.in_flight += 1
        started_at = self._clock()
        try:
            connection, response = await self._send(method, target, headers, body, timeout_s)
        except BaseException:
            self.in_flight -= 1
            raise
        self._observe(self._clock() - started_at)
        response.on_release = partial(self._release, connection)
        return response

    async def _send(
        self, method: str, target: str, headers: Headers, body: bytes, timeout_s: float
    ) -> tuple[UpstreamConnection, UpstreamResponse]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        if timeout_s <= 0:
            raise UpstreamTimeout("the deadline had passed")
        framing = f"Content-Length: {len(body)}\r\n" if body or method in _WITH_BODY else ""
        head = request_head(method, target, self._authority, headers, framing)
        is_repeatable = method in _REPEATABLE
        connection = self._take_idle(MAX_IDLE_S if is_repeatable else SAFE_IDLE_S)
        for _ in range(MAX_ATTEMPTS):
            is_new = connection is None
            connection = connection or await self._dial(deadline - loop.time())
            timer = loop.call_at(deadline, connection.on_deadline)
            try:
                return connection, await connection.send(method, head, body, expects_continue=is_new and body != b"")
            except ConnectionClosed:
                if not (is_repeatable or connection.body_is_unsent):
                    break
                connection = None
            except BaseException:
                connection.abort()
                raise
            finally:
                timer.cancel()
        raise BadGateway("the connection closed before a response")

    def _release(self, connection: UpstreamConnection) -> None:
        self.in_flight -= 1
        if connection.release():
            now = connection.idle_since = self._clock()
            self._idle.append(connection)
            while now - self._idle[0].idle_since > MAX_IDLE_S:
                self._idle.popleft().abort()

    def _take_idle(self, max_idle_s: float) -> UpstreamConnection | None:
        """Return the connection idle longest, so that replicas share the load; the newest if that one is too old."""
        now = self._clock()
        while self._idle and now - self._idle[-1].idle_since <= max_idle_s:
            is_oldest_usable = now - self._idle[0].idle_since <= max_idle_s
            connection = self._idle.popleft() if is_oldest_usable else self._idle.pop()
            if connection.is_open and now < connection.expires_at:
                return connection
            connection.abort()
        return None

    async def _dial(self, remaining_s: float) -> UpstreamConnection:
        """Connect to one of the addresses. If all fail, look them up again: the service may have moved."""
        timeout_s = min(self._connect_timeout_s, remaining_s)
        try:
            async with asyncio.timeout(timeout_s):
                with suppress(OSError):  # includes TimeoutError
                    return await self._connect(timeout_s / 2)
                self._addresses_expire_at = 0.0
                return await self._connect(timeout_s / 2)
        except OSError as error:
            if isinstance(error, TimeoutError) and remaining_s < self._connect_timeout_s:
                raise UpstreamTimeout("not connected before the deadline") from error
            raise BadGateway(f"not connected: {type(error).__name__}") from error

    async def _connect(self, timeout_s: float) -> UpstreamConnection:
        """Connect to the first address that accepts. Each dial starts with another one, so replicas share the load.

        Raises the OSError of the last address.
        """
        addresses = await self._resolved(timeout_s / 2)
        start, failure = next(self._dials), OSError("the host name has no address")
        for offset in range(len(addresses)):
            try:
                async with asyncio.timeout(timeout_s / len(addresses)):
                    return await self._open(addresses[(start + offset) % len(addresses)])
            except OSError as error:
                failure = error
        raise failure

    async def _resolved(self, timeout_s: float) -> list[str]:
        """Return the addresses of the host. The last known ones are used for another DNS_TTL_S if the lookup fails."""
        async with self._lookup:
            if self._clock() >= self._addresses_expire_at:
                with suppress(OSError):
                    async with asyncio.timeout(timeout_s if self._addresses else None):
                        self._addresses = await self._resolve(self._host, self._port) or self._addresses
                self._addresses_expire_at = self._clock() + DNS_TTL_S if self._addresses else 0.0
        return self._addresses

    async def _open(self, address: str) -> UpstreamConnection:
        expires_at = self._clock() + random.uniform(MAX_AGE_S / 2, MAX_AGE_S)  # a burst's connections expire apart
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: UpstreamConnection(self._idle_timeout_s, expires_at),
            address,
            self._port,
            ssl=self._ssl,
            server_hostname=self._host if self._ssl else None,
        )
        return connection

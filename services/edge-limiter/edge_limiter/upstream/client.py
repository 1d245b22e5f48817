"""Calls upstreams over kept connections: bounded, without cookies, redirects, proxies or hidden repeats.

A request is sent once more only when nothing of it can have been acted upon: a GET or HEAD on a connection that ended
before a byte of the answer, or a request whose body had not left. A new connection is therefore asked first whether
somebody reads (`Expect: 100-continue`): a server that stops resets what its kernel took and it has not accepted yet.
"""

import asyncio
import random
import socket
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from common.runner import LAME_DUCK_S
from edge_limiter.upstream.connection import Stale, UpstreamConnection
from edge_limiter.upstream.exchange import BadGateway, Body, Headers, UpstreamBusy, UpstreamLate
from edge_limiter.upstream.response import UpstreamAnswer
from edge_limiter.wire import request_head

KEEPALIVE_S: Final = 0.5 * LAME_DUCK_S  # so that what a draining service closes at last is never used again
MAX_AGE_S: Final = 60.0  # so that a replica added later gets its share
MAX_DIALS: Final = 3  # for one request
CHUNKED: Final = "Transfer-Encoding: chunked\r\n"
ASKS: Final = "Expect: 100-continue\r\n"
_REPEATABLE: Final = frozenset({"GET", "HEAD"})
_WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


Resolve = Callable[[str, int], Awaitable[list[str]]]


def random_lifetime_s() -> float:
    """Of one connection: all those that a busy moment opened would else end, and be opened anew, in one moment."""
    return random.uniform(MAX_AGE_S / 2, MAX_AGE_S)


async def resolve_name(host: str, port: int) -> list[str]:
    """The addresses of a name, or the address itself. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class Upstream:
    """One service behind the edge; an `Exchange`. At most `limit` requests are on their way at once.

    At most half of them may be such whose bodies still come: slow clients leave room for the others.
    """

    def __init__(
        self,
        origin: str,
        *,
        connect_timeout_s: float,
        idle_timeout_s: float,
        limit: int,
        observe: Callable[[float], None],
        resolve: Resolve | None = None,
        lifetime_s: Callable[[], float] = random_lifetime_s,
    ) -> None:
        """`idle_timeout_s` bounds the silence between two pieces of a body; each call has its own time limit."""
        parts = urlsplit(origin)
        self._host = parts.hostname or ""
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._ssl else 80)
        self._authority = parts.netloc
        self._connect_timeout_s = connect_timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._limit = limit
        self._observe = observe
        self._resolve = resolve or resolve_name
        self._lifetime_s = lifetime_s
        self._known: list[str] = []
        self._question: asyncio.Future[list[str]] | None = None
        self._asked_s = 0.0
        self._idle: deque[UpstreamConnection] = deque()
        self._turn = 0
        self.in_flight = self._uploads = 0

    def close(self) -> None:
        """Close what is idle; calls close their own connections."""
        if self._question is not None:
            self._question.cancel()
        while self._idle:
            self._idle.popleft().abort()

    async def __call__(
        self, method: str, target: str, headers: Headers, body: Body, timeout_s: float
    ) -> UpstreamAnswer:
        """Send a request and wait for the head of its answer. Raises ExchangeError, or what the body raises.

        One frame for all of it, and no coroutine below: every frame is paid for at each step of the wait.
        """
        is_upload = not isinstance(body, bytes)
        if self.in_flight >= self._limit or (is_upload and self._uploads * 2 >= self._limit):
            raise UpstreamBusy
        self.in_flight += 1
        self._uploads += is_upload
        loop = asyncio.get_running_loop()
        started = loop.time()
        framing = _framing(method, headers, body)
        connection: UpstreamConnection | None = None
        dials = 0
        try:
            while True:
                kept = self._take_idle(started)
                connection = kept or await self._dial(started + timeout_s - loop.time())
                dials += kept is None
                asks = kept is None and body != b""
                head = request_head(method, target, self._authority, headers, framing + ASKS if asks else framing)
                timer = loop.call_at(started + timeout_s, connection.give_up)
                try:
                    answer = await connection.send(method, head, body, framing is CHUNKED, asks)
                except Stale as error:
                    is_safe = connection.is_withholding or (method in _REPEATABLE and not is_upload)
                    if not is_safe or dials == MAX_DIALS:
                        raise BadGateway("the connection broke off") from error
                    continue
                finally:
                    timer.cancel()
                self._observe(loop.time() - started)
                answer.on_leave = partial(self._leave, connection, is_upload)
                return answer
        except BaseException:
            self.in_flight -= 1
            self._uploads -= is_upload
            if connection is not None:
                connection.abort()
            raise

    def _leave(self, connection: UpstreamConnection, is_upload: bool) -> None:
        """Take the connection of a call back if it can be used again."""
        self.in_flight -= 1
        self._uploads -= is_upload
        if not connection.leave():
            return
        now = connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        if self._idle[0].idle_since < now - KEEPALIVE_S:
            self._idle.popleft().abort()

    def _take_idle(self, now: float) -> UpstreamConnection | None:
        while self._idle:
            connection = self._idle.popleft()  # idle longest: the last one back is always the quickest replica's
            is_fresh = connection.idle_since >= now - KEEPALIVE_S and now < connection.lives_until
            if is_fresh and connection.is_usable:
                return connection
            connection.abort()
        return None

    async def _dial(self, left_s: float) -> UpstreamConnection:
        """A new connection: the addresses of a name take turns, so replicas share the load; dead ones are passed."""
        loop = asyncio.get_running_loop()
        timeout_s = min(self._connect_timeout_s, left_s)
        try:
            async with asyncio.timeout(timeout_s):
                addresses = await self._addresses(loop, timeout_s / 2)
                turn = self._turn = self._turn + 1  # others dial meanwhile
                for place in range(len(addresses)):
                    address = addresses[(turn + place) % len(addresses)]
                    try:
                        async with asyncio.timeout(timeout_s / len(addresses)):
                            return await self._connect(loop, address)
                    except OSError:  # TimeoutError is one
                        if place == len(addresses) - 1:
                            raise
        except TimeoutError as error:
            late = left_s < self._connect_timeout_s
            raise (UpstreamLate if late else BadGateway)("not reachable in time") from error
        except OSError as error:
            raise BadGateway(type(error).__name__) from error
        raise BadGateway("the name has no address")

    async def _addresses(self, loop: asyncio.AbstractEventLoop, patience_s: float) -> list[str]:
        """Those of the name now, or the last known ones while nobody can say, or not soon.

        All who dial share one question: a resolver that hangs has few threads, and would collect them.
        """
        if self._question is None or self._question.done():
            self._question = asyncio.ensure_future(self._resolve(self._host, self._port))
            self._asked_s = loop.time()
        try:
            async with asyncio.timeout_at(self._asked_s + patience_s if self._known else None):
                self._known = await asyncio.shield(self._question)
        except OSError:  # TimeoutError is one
            if not self._known:
                raise
        return self._known

    async def _connect(self, loop: asyncio.AbstractEventLoop, address: str) -> UpstreamConnection:
        _, connection = await loop.create_connection(
            lambda: UpstreamConnection(self._idle_timeout_s, self._forget),
            address,
            self._port,
            ssl=self._ssl,
            server_hostname=self._host if self._ssl else None,
        )
        connection.lives_until = loop.time() + self._lifetime_s()
        return connection

    def _forget(self, connection: UpstreamConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)


def _framing(method: str, headers: Headers, body: Body) -> str:
    if isinstance(body, bytes):
        return f"Content-Length: {len(body)}\r\n" if body or method in _WITH_BODY else ""
    return "" if any(name == "Content-Length" for name, _ in headers) else CHUNKED

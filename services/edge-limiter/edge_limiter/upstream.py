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
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final
from urllib.parse import urlsplit

from common.service import LAME_DUCK_S
from edge_limiter.exchange import BadGateway, Body, Headers, UpstreamBusy, UpstreamLate
from edge_limiter.upstream_connection import Stale, UpstreamAnswer, UpstreamConnection
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

    def __call__(self, method: str, target: str, headers: Headers, body: Body, timeout_s: float) -> "_Call":
        return _Call(self, method, target, headers, body, timeout_s)

    def close(self) -> None:
        """Close what is idle; calls close their own connections."""
        if self._question is not None:
            self._question.cancel()
        while self._idle:
            self._idle.popleft().abort()

    def leave(self, call: "_Call", now: float) -> None:
        """Take the call's connection back if it can be used again."""
        self.in_flight -= 1
        self._uploads -= call.is_upload
        connection = call.connection
        assert connection is not None
        if not connection.leave():
            return
        connection.idle_since = now
        self._idle.append(connection)
        if self._idle[0].idle_since < now - KEEPALIVE_S:
            self._idle.popleft().abort()

    async def enter(self, call: "_Call") -> UpstreamAnswer:
        """Send the call's request and wait for the head of its answer. Raises ExchangeError, or what its body raises.

        One frame for all of it, and no coroutine below: every frame is paid for at each step of the wait.
        """
        if self.in_flight >= self._limit or (call.is_upload and self._uploads * 2 >= self._limit):
            raise UpstreamBusy
        self.in_flight += 1
        self._uploads += call.is_upload
        loop = asyncio.get_running_loop()
        started = loop.time()
        framing = self._framing(call)
        dials = 0
        try:
            while True:
                kept = self._take_idle(started)
                connection = call.connection = kept or await self._dial(started + call.timeout_s - loop.time())
                dials += kept is None
                asks = kept is None and call.body != b""
                told = framing + ASKS if asks else framing
                head = request_head(call.method, call.target, self._authority, call.headers, told)
                timer = loop.call_at(started + call.timeout_s, connection.give_up)
                try:
                    answer = await connection.send(call.method, head, call.body, framing is CHUNKED, asks)
                except Stale as error:
                    is_safe = connection.is_withholding or call.is_repeatable
                    if not is_safe or dials == MAX_DIALS:
                        raise BadGateway("the connection broke off") from error
                    continue
                finally:
                    timer.cancel()
                self._observe(loop.time() - started)
                return answer
        except BaseException:
            self.in_flight -= 1
            self._uploads -= call.is_upload
            if call.connection is not None:
                call.connection.abort()
            raise

    def _framing(self, call: "_Call") -> str:
        if isinstance(call.body, bytes):
            return f"Content-Length: {len(call.body)}\r\n" if call.body or call.method in _WITH_BODY else ""
        return "" if any(name == "Content-Length" for name, _ in call.headers) else CHUNKED

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
        failure: OSError | None = None
        try:
            async with asyncio.timeout(timeout_s):
                addresses = await self._addresses(loop, timeout_s / 2)
                turn = self._turn = self._turn + 1  # others dial meanwhile
                for place in range(len(addresses)):
                    address = addresses[(turn + place) % len(addresses)]
                    try:
                        async with asyncio.timeout(timeout_s / len(addresses)):
                            return await self._connect(loop, address)
                    except OSError as error:  # TimeoutError is one
                        failure = error
        except TimeoutError as error:
            late = left_s < self._connect_timeout_s
            raise (UpstreamLate if late else BadGateway)("not reachable in time") from error
        except OSError as error:
            raise BadGateway(type(error).__name__) from error
        raise BadGateway("no address answers") from failure

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


class _Call:
    """`async with` sends the request and gives the answer; leaving early ends the call."""

    __slots__ = ("_upstream", "body", "connection", "headers", "is_upload", "method", "target", "timeout_s")

    def __init__(
        self, upstream: Upstream, method: str, target: str, headers: Headers, body: Body, timeout_s: float
    ) -> None:
        self._upstream = upstream
        self.connection: UpstreamConnection | None = None
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.timeout_s = timeout_s
        self.is_upload = not isinstance(body, bytes)

    @property
    def is_repeatable(self) -> bool:
        """Whether asking twice does no more than asking once."""
        return self.method in _REPEATABLE and isinstance(self.body, bytes)

    def __aenter__(self) -> Coroutine[Any, Any, UpstreamAnswer]:
        return self._upstream.enter(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._upstream.leave(self, asyncio.get_running_loop().time())

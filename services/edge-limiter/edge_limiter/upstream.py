"""Calls upstreams through aiohttp's client: bounded, without cookies, redirects, proxies or hidden repeats.

aiohttp sends GET and HEAD once more when a kept connection turns out dead, which is safe; it would do so for PUT,
DELETE and OPTIONS too, so these travel on connections of their own. A POST is never sent twice.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from edge_limiter.exchange import Answer, BadGateway, Body, Headers, UpstreamBusy, UpstreamLate

KEEPALIVE_S: Final = 20.0  # shorter than the services' own, so that a kept connection is rarely dead
_FRESH: Final = frozenset({"PUT", "DELETE", "OPTIONS"})
_MADE_BY_US: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


def create_session(connect_timeout_s: float, idle_timeout_s: float, *, keep_alive: bool) -> aiohttp.ClientSession:
    """`idle_timeout_s` bounds the silence between two pieces of a body; each call has its own time limit."""
    if keep_alive:
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, keepalive_timeout=KEEPALIVE_S)
    else:
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=30, force_close=True)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s, sock_read=idle_timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=_MADE_BY_US,
        trust_env=False,
    )


class Upstream:
    """One service behind the edge; an `Exchange`. At most `limit` requests are on their way at once."""

    def __init__(
        self,
        origin: str,
        *,
        kept: aiohttp.ClientSession,
        fresh: aiohttp.ClientSession,
        limit: int,
        observe: Callable[[float], None],
    ) -> None:
        self._origin = origin.rstrip("/")
        self._kept = kept
        self._fresh = fresh
        self._limit = limit
        self._observe = observe
        self.in_flight = 0

    @asynccontextmanager
    async def __call__(
        self, method: str, target: str, headers: Headers, body: Body, timeout_s: float
    ) -> AsyncIterator[Answer]:
        if self.in_flight >= self._limit:
            raise UpstreamBusy
        self.in_flight += 1
        try:
            response = await self._request(method, target, headers, body, timeout_s)
            try:
                yield _Answer(response)
            finally:
                response.close()  # a connection whose answer was read to its end has gone back to the pool already
        finally:
            self.in_flight -= 1

    async def _request(
        self, method: str, target: str, headers: Headers, body: Body, timeout_s: float
    ) -> aiohttp.ClientResponse:
        session = self._fresh if method in _FRESH else self._kept
        started = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(timeout_s):
                response = await session.request(
                    method,
                    URL(self._origin + target, encoded=True),
                    headers=CIMultiDict(headers),
                    data=body or None,
                    allow_redirects=False,
                )
        except aiohttp.ConnectionTimeoutError as error:
            raise BadGateway("not reachable in time") from error
        except TimeoutError as error:
            raise UpstreamLate("no answer before the deadline") from error
        except (aiohttp.ClientError, OSError) as error:
            raise BadGateway(type(error).__name__) from error
        self._observe(asyncio.get_running_loop().time() - started)
        return response


class _Answer:
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.length = response.content_length

    @property
    def headers(self) -> Iterable[tuple[str, str]]:
        return self._response.headers.items()

    async def read(self) -> bytes:
        with _translated():
            return await self._response.read()

    async def chunks(self) -> AsyncIterator[bytes]:
        with _translated():
            async for chunk in self._response.content.iter_any():
                yield chunk


class _translated:  # reads as a statement
    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TimeoutError):
            raise UpstreamLate("the body stopped coming") from error
        if isinstance(error, aiohttp.ClientError | OSError):
            raise BadGateway(type(error).__name__) from error

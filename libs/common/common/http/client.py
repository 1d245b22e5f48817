"""HTTP calls between services: time limits, the caller's deadline, and named errors."""

import asyncio
import time
from typing import Final, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from common.http.context import RequestContext

MAX_RESPONSE_BYTES: Final = 8 << 20  # ten times the longest response of our services


class UpstreamError(Exception):
    """The other service is unreachable, failed, or violated its contract."""


class UpstreamMalformed(UpstreamError):
    """The other service violated its contract, so retrying does not help."""


class UpstreamRefused(UpstreamError):
    """The other service responded with a status of 400 or more."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


R = TypeVar("R", bound=BaseModel)


def create_session(*, connections: int = 100, connect_timeout_s: float = 2.0) -> aiohttp.ClientSession:
    """Return a session without cookies and environment proxies. Each call sets its own total time limit."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ttl_dns_cache=30),
        timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
    )


async def call_json(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    answer: type[R],
    context: RequestContext,
    body: BaseModel | None = None,
) -> R:
    """Call another service within the caller's deadline and validate its response. Raises only UpstreamError."""
    now_s = time.monotonic()
    headers = context.outgoing_headers(now_s)
    data = None
    if body is not None:
        data = body.model_dump_json().encode()
        headers["Content-Type"] = "application/json"
    try:
        async with asyncio.timeout(max(0.0, context.remaining_s(now_s))):
            async with session.request(method, url, data=data, headers=headers, allow_redirects=False) as response:
                content = await _read(response)
    except TimeoutError as error:
        raise UpstreamError("no response before the deadline") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamError(type(error).__name__) from error
    if response.status >= 400:
        raise UpstreamRefused(response.status)
    try:
        return answer.model_validate_json(content)
    except ValidationError as error:
        raise UpstreamMalformed("the response does not match its contract") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for part in response.content.iter_any():
        content += part
        if len(content) > MAX_RESPONSE_BYTES:
            raise UpstreamMalformed("the response is too long")
    return bytes(content)

"""HTTP from one service to another: time limits, the caller's deadline passed on, errors translated."""

import asyncio
import time
from collections.abc import Callable
from typing import Final, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from common.http.context import RequestContext

MAX_ANSWER_BYTES: Final = 8 << 20  # no service of ours answers another with a tenth of it


class UpstreamError(Exception):
    """The other service could not be reached, broke, or answered what its contract does not allow."""


class UpstreamTimeout(UpstreamError):
    """The other service did not answer before the deadline."""


class UpstreamMalformed(UpstreamError):
    """The other service answered what its contract does not allow; asking again would not help."""


class UpstreamRefused(UpstreamError):
    """The other service answered with a status of 400 or more."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


R = TypeVar("R", bound=BaseModel)


def create_session(*, connections: int = 100, connect_timeout_s: float = 2.0) -> aiohttp.ClientSession:
    """A session without cookies, environment proxies or its own total time limit: each call has one."""
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
    now: Callable[[], float] = time.monotonic,
) -> R:
    """Call another service within the caller's deadline and validate its answer; raises UpstreamError only."""
    at = now()
    headers = context.outgoing_headers(at)
    data = None
    if body is not None:
        data = body.model_dump_json().encode()
        headers["Content-Type"] = "application/json"
    try:
        async with asyncio.timeout(max(0.0, context.remaining_s(at))):
            async with session.request(method, url, data=data, headers=headers, allow_redirects=False) as response:
                content = await _read(response)
    except TimeoutError as error:
        raise UpstreamTimeout("no answer before the deadline") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamError(type(error).__name__) from error
    if response.status >= 400:
        raise UpstreamRefused(response.status)
    try:
        return answer.model_validate_json(content)
    except ValidationError as error:
        raise UpstreamMalformed("the answer does not match its contract") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for part in response.content.iter_any():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise UpstreamMalformed("the answer is too long")
    return bytes(content)

"""What a proof claims, and the requests that test it."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

LIMIT: Final = 60
REQUEST_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A promise, whether it held, and what was measured."""

    text: str
    holds: bool
    found: str


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]


def burst(urls: Sequence[str], address: str, count: int) -> Counter[int]:
    """Send `count` concurrent predictions from one address, to each URL in turn; return the statuses."""
    return asyncio.run(_burst(urls, address, count))


async def _burst(urls: Sequence[str], address: str, count: int) -> Counter[int]:
    async with client() as session:
        answers = await asyncio.gather(
            *(post(session, f"{urls[number % len(urls)]}/predict", address) for number in range(count))
        )
    return Counter(answer.status for answer in answers)


def client() -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


async def post(session: aiohttp.ClientSession, url: str, address: str, body: Any = None) -> Answer:
    headers = {"X-Forwarded-For": address}
    async with session.post(url, json=body or {"text": "A fine film."}, headers=headers) as response:
        await response.read()
        return Answer(response.status, dict(response.headers))

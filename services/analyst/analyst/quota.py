"""The calls that all replicas together may send to the model: an exact sliding log in Redis, on Redis's clock.

Promise: never more than `limit` slots taken in any window, whatever the clients' clocks say. The window is a second
longer than the provider's minute, because the provider's clock is not ours.
"""

from dataclasses import dataclass
from importlib import resources
from typing import Final, Literal

from redis.asyncio import Redis

from common.redis import REDIS_ERRORS

WINDOW_S: Final = 61.0
_LOG: Final = "analyst:{quota}:log"
_BLOCK: Final = "analyst:{quota}:block"


class QuotaUnavailable(Exception):
    """Redis did not answer: nothing may be spent, because nobody could count it."""


@dataclass(frozen=True, slots=True)
class Slot:
    """The answer to `take`: whether one call may be sent now, how many are left, and how long to wait if not."""

    granted: bool
    remaining: int
    wait_s: float
    reason: Literal["granted", "quota", "blocked"]


class Quota:
    """`limit` slots in any `window_s`, over all processes that use the same Redis."""

    def __init__(self, redis: Redis, limit: int, window_s: float = WINDOW_S) -> None:
        self._redis = redis
        self.limit = limit
        self._window_us = round(window_s * 1_000_000)
        self._take = redis.register_script(_script("quota_take"))
        self._block = redis.register_script(_script("quota_block"))

    async def take(self, member: str) -> Slot:
        """Take the slot named `member`, which must be unique to one attempt. Raises QuotaUnavailable."""
        try:
            granted, remaining, wait_us, reason = await self._take(
                keys=[_LOG, _BLOCK], args=[member, self.limit, self._window_us]
            )
        except REDIS_ERRORS as error:
            raise QuotaUnavailable(type(error).__name__) from error
        return Slot(bool(granted), int(remaining), int(wait_us) / 1_000_000, reason)

    async def refund(self, member: str) -> None:
        """Give a slot back; only for an attempt of which no byte was sent. Raises QuotaUnavailable."""
        try:
            await self._redis.zrem(_LOG, member)
        except REDIS_ERRORS as error:
            raise QuotaUnavailable(type(error).__name__) from error

    async def block(self, wait_s: float) -> None:
        """The provider refused for `wait_s`: no replica asks again before. Raises QuotaUnavailable."""
        try:
            await self._block(keys=[_BLOCK], args=[max(1, round(wait_s * 1_000_000))])
        except REDIS_ERRORS as error:
            raise QuotaUnavailable(type(error).__name__) from error


def _script(name: str) -> str:
    return resources.files("analyst").joinpath(f"lua/{name}.lua").read_text()

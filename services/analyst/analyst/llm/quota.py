"""The model calls that all replicas may send together: an exact sliding log in Redis, on Redis's clock.

No more than `limit` calls are granted in any window. The window is a second longer than the provider's minute, because
the provider's clock is not ours.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio import Redis

from analyst.llm.retry import Grant, QuotaUnavailable
from analyst.scripts import Script, load_script
from common.stores.redis import REDIS_ERRORS

WINDOW_S: Final = 61.0
_LOG: Final = "analyst:{quota}:log"
_BLOCK: Final = "analyst:{quota}:block"


class Quota:
    """Grant `limit` calls in any `window_s`, over all processes that use the same Redis. `last` is the last grant."""

    def __init__(
        self, redis: Redis, limit: int, window_s: float = WINDOW_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = redis
        self.limit = limit
        self.window_s = window_s
        self.last: Grant | None = None
        self._last_at_s = 0.0
        self._now = now
        self._limits = [str(limit), str(round(window_s * 1_000_000))]
        self._take = load_script(redis, "quota_take")
        self._look = load_script(redis, "quota_look")
        self._block = load_script(redis, "quota_block")

    @property
    def left(self) -> int:
        """Calls left, estimated from the last grant of this process."""
        passed_s = self._now() - self._last_at_s
        if self.last is None or passed_s >= max(self.window_s, self.last.wait_s):
            return self.limit
        return max(self.last.remaining, int(not self.last.granted and passed_s >= self.last.wait_s))

    async def take(self, member: str) -> Grant:
        """See QuotaBackend. The same member again is the same call."""
        return self._record(await _run(self._take, [_LOG, _BLOCK], [member, *self._limits]))

    async def look(self) -> Grant:
        """Return what `take` would answer now. Raises QuotaUnavailable."""
        return self._record(await _run(self._look, [_LOG, _BLOCK], self._limits))

    async def refund(self, member: str) -> None:
        """See QuotaBackend."""
        try:
            await self._redis.zrem(_LOG, member)
        except REDIS_ERRORS as error:
            raise QuotaUnavailable(type(error).__name__) from error

    async def block(self, wait_s: float) -> None:
        """See QuotaBackend. A longer block stays."""
        await _run(self._block, [_BLOCK], [str(max(1, round(wait_s * 1_000_000)))])

    def _record(self, answer: list[Any]) -> Grant:
        granted, remaining, wait_us, reason = answer
        self._last_at_s = self._now()
        self.last = Grant(bool(granted), int(remaining), int(wait_us) / 1_000_000, reason)
        return self.last


async def _run(script: Script, keys: list[str], args: list[str]) -> Any:
    try:
        return await script(keys, args)
    except REDIS_ERRORS as error:
        raise QuotaUnavailable(type(error).__name__) from error

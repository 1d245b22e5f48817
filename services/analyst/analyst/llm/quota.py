"""The calls that all replicas together may send to the model: an exact sliding log in Redis, on Redis's clock.

Promise: never more than `limit` slots taken in any window, whatever the clients' clocks say. The window is a second
longer than the provider's minute, because the provider's clock is not ours. Of the limit a part is reserved: whoever
takes what is spare leaves that part free.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio import Redis

from analyst.llm.retry import Grant, QuotaUnavailable
from analyst.scripts import Script, load_script
from common.stores.redis import REDIS_ERRORS

WINDOW_S: Final = 61.0
RESERVED: Final = 6
"""At least, where the limit is more: one call for each window that has a name, whose report is then kept."""
_LOG: Final = "analyst:{quota}:log"
_BLOCK: Final = "analyst:{quota}:block"


class Quota:
    """The Slots of `analyst.llm.retry`: `limit` in any `window_s`, over all processes that use the same Redis.

    `last` is what this process was last told.
    """

    def __init__(
        self, redis: Redis, limit: int, window_s: float = WINDOW_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis = redis
        self.limit = limit
        self.window_s = window_s
        self.last: Grant | None = None
        self._told_at_s = 0.0
        self._now = now
        self._reserved = min(max(limit // 2, RESERVED), limit - 1)
        self._limits = [str(limit), str(round(window_s * 1_000_000))]
        self._take = load_script(redis, "quota_take")
        self._look = load_script(redis, "quota_look")
        self._block = load_script(redis, "quota_block")

    @property
    def left(self) -> int:
        """Slots left by what this process was last told: all of them before and a window after, and one again when the
        wait has passed that came with a refusal.
        """
        passed_s = self._now() - self._told_at_s
        if self.last is None or passed_s >= max(self.window_s, self.last.wait_s):
            return self.limit
        return max(self.last.remaining, int(not self.last.granted and passed_s >= self.last.wait_s))

    def share(self, *, low_priority: bool) -> int:
        """How many of the limit may be taken by who asks for what is spare, or for any."""
        return self.limit - self._reserved if low_priority else self.limit

    async def take(self, member: str, *, low_priority: bool = False) -> Grant:
        """See Slots. The same member again is the same slot."""
        share = str(self.share(low_priority=low_priority))
        return self._seen(await _run(self._take, [_LOG, _BLOCK], [member, *self._limits, share]))

    async def look(self, *, low_priority: bool = False) -> Grant:
        """What `take` would answer now; takes nothing. Raises QuotaUnavailable."""
        share = str(self.share(low_priority=low_priority))
        return self._seen(await _run(self._look, [_LOG, _BLOCK], [*self._limits, share]))

    async def refund(self, member: str) -> None:
        """See Slots."""
        try:
            await self._redis.zrem(_LOG, member)
        except REDIS_ERRORS as error:
            raise QuotaUnavailable(type(error).__name__) from error

    async def block(self, wait_s: float) -> None:
        """See Slots. A longer block stays."""
        await _run(self._block, [_BLOCK], [str(max(1, round(wait_s * 1_000_000)))])

    def _seen(self, answer: list[Any]) -> Grant:
        granted, remaining, wait_us, reason = answer
        self._told_at_s = self._now()
        self.last = Grant(bool(granted), int(remaining), int(wait_us) / 1_000_000, reason)
        return self.last


async def _run(script: Script, keys: list[str], args: list[str]) -> Any:
    try:
        return await script(keys, args)
    except REDIS_ERRORS as error:
        raise QuotaUnavailable(type(error).__name__) from error

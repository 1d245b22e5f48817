"""One process of the quota test: tries at random times and prints each, with Redis's own time before and after."""

import asyncio
import json
import random
import sys
import time
from typing import Any, cast

from redis.asyncio import Redis

from analyst.llm.quota import Quota


class Witness(Redis):
    """Reads in the moment of a try when its slot was taken: a little later the slot may have ended."""

    member = ""
    taken_us: float | None = None

    async def evalsha(self, *words: Any) -> Any:
        return await self._witnessed("EVALSHA", *words)

    async def eval(self, *words: Any) -> Any:
        return await self._witnessed("EVAL", *words)

    async def _witnessed(self, *words: Any) -> Any:
        async with self.pipeline(transaction=True) as both:
            both.execute_command(*words)
            both.zscore("analyst:{quota}:log", self.member)
            answer, self.taken_us = await both.execute()
        return answer


async def main(url: str, seed: int, tries: int, limit: int, window_s: float) -> None:
    skewed = time.time
    time.time = lambda: skewed() + 30 * (seed - 1.5)  # each process lives in another minute
    chance = random.Random(seed)
    redis = cast(Witness, Witness.from_url(url, decode_responses=True))
    quota = Quota(redis, limit, window_s)
    for number in range(tries):
        member = f"{seed}-{number}"
        redis.member = member
        before_us = await _now_us(redis)
        slot = await quota.take(member)
        result = {
            "granted_us": int(redis.taken_us or 0) if slot.granted else None,
            "remaining": slot.remaining,
            "wait_us": round(slot.wait_s * 1_000_000),
            "before_us": before_us,
            "after_us": await _now_us(redis),
        }
        print(json.dumps(result))  # noqa: T201  # its parent reads it
        await asyncio.sleep(chance.random() * 0.004)
    await redis.aclose()


async def _now_us(redis: Redis) -> int:
    seconds, us = await redis.time()
    return int(seconds) * 1_000_000 + int(us)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))

"""One process of the quota test: tries at random times and prints Redis's own time of each slot it was granted."""

import asyncio
import random
import sys
import time

from redis.asyncio import Redis

from analyst.quota import Quota


async def main(url: str, seed: int, tries: int, limit: int, window_s: float) -> None:
    skewed = time.time
    time.time = lambda: skewed() + 30 * (seed - 1.5)  # each process lives in another minute
    chance = random.Random(seed)
    redis = Redis.from_url(url, decode_responses=True)
    quota = Quota(redis, limit, window_s)
    for number in range(tries):
        member = f"{seed}-{number}"
        if (await quota.take(member)).granted:
            print(int(await redis.zscore("analyst:{quota}:log", member) or 0))  # noqa: T201  # its parent reads it
        await asyncio.sleep(chance.random() * 0.004)
    await redis.aclose()


asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))

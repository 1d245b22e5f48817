"""One replica of test_replicas: asks for one key many times at once, and says on stdout what happens.

What it computes are attempts of a model, by the schedule and the quota of the service; only their waits are left out.
"""

import asyncio
import json
import random
import secrets
import sys
import time
from collections import Counter
from dataclasses import dataclass

from redis.asyncio import Redis

from analyst.cache.redis_store import Listener, RedisFlightStore, listen
from analyst.cache.single_flight import Computed, Limits, SingleFlightCache
from analyst.llm.client import Budget, Completion, LLMError, Prompt, Retryable
from analyst.llm.quota import Quota
from analyst.llm.retry import RetryingClient


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


@dataclass
class Model:
    """Counts its attempts in Redis; each answers with what somebody pushes to the list `go`, or is a 503."""

    redis: Redis
    model: str = "model"

    async def complete(self, prompt: Prompt, timeout_s: float) -> Completion:
        await self.redis.incr("attempts")
        say("asking")
        answer = await self.redis.blpop(["go"], timeout=600)
        if answer is None or answer[1] == "503":
            raise Retryable("unavailable")
        return Completion("report", self.model)

    async def close(self) -> None:
        pass


async def main(port: int, password: str, lease_s: float, requests: int) -> None:
    redis = Redis(host="127.0.0.1", port=port, password=password, decode_responses=True)
    flights = SingleFlightCache(
        RedisFlightStore(redis),
        Limits(300, 3600, 5, lease_s, 600, 600, 10),
        now=time.monotonic,
        uniform=random.uniform,
        new_token=lambda: secrets.token_hex(8),
        on_error=lambda error: say(repr(error)),
    )
    listening = asyncio.create_task(listen(redis, Listener(flights.wake, flights.forget, flights.wake_all), min))

    retrying = RetryingClient(
        Model(redis),
        Quota(redis, 10),
        attempt_timeout_s=600,
        new_token=lambda: secrets.token_hex(8),
        uniform=random.uniform,
        on_outcome=lambda outcome: None,
        sleep=lambda seconds: asyncio.sleep(0),
    )

    async def compute(allow_llm: bool) -> Computed:
        try:
            budget = Budget(time.monotonic() + 6000)
            return Computed((await retrying.complete(Prompt("system", "user", {}), budget)).text)
        except LLMError:
            return Computed("rules", is_fallback=True)

    tasks = [asyncio.create_task(flights.get("key", compute)) for _ in range(requests)]
    await asyncio.sleep(0)
    say("asked")
    served = await asyncio.gather(*tasks)
    say(json.dumps(Counter(f"{result.payload} {result.cache}" for result in served)))
    await flights.close()
    listening.cancel()
    await asyncio.wait([listening])
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]), int(sys.argv[4])))

"""One replica of test_replicas: asks for one key many times at once, and says on stdout what happens."""

import asyncio
import json
import random
import secrets
import sys
import time
from collections import Counter

from redis.asyncio import Redis

from analyst.flight import Computed, Flights, Limits
from analyst.flight_store import Listener, RedisFlightStore, listen


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main(port: int, password: str, lease_s: float, requests: int) -> None:
    """Compute until somebody pushes to the list `go`."""
    redis = Redis(host="127.0.0.1", port=port, password=password, decode_responses=True)
    flights = Flights(
        RedisFlightStore(redis),
        Limits(300, 3600, 5, lease_s, 30, 30, 10),
        now=time.monotonic,
        uniform=random.uniform,
        new_token=lambda: secrets.token_hex(8),
        on_error=lambda error: say(repr(error)),
    )
    listening = asyncio.create_task(listen(redis, Listener(flights.wake, flights.forget, flights.wake_all), min))

    async def compute(may_spend: bool) -> Computed:
        await redis.incr("computations")
        say("computing")
        await redis.blpop(["go"], timeout=20)
        return Computed("report", is_fallback=not may_spend)

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

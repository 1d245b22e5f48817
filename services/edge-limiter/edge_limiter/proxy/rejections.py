"""Counts the requests that the edge rejected or failed, and writes the counts to the Redis stream.

A flood costs a request some dictionary increments, and the edge one event a second. Counts that cannot be written are
retried until newer ones displace them. Only the addresses of the most limited clients are hashed.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import islice
from typing import Final, NamedTuple

import structlog
from redis.asyncio import Redis

from common.contracts.events import EVENT_FIELD, MAX_CLIENTS, STREAM, CounterEvent, LimitedClient, Outcome
from common.http.context import uuid7

log = structlog.get_logger()

OUTCOMES: Final[dict[int, Outcome]] = {429: "limited", 502: "bad_gateway", 503: "unavailable", 504: "timeout"}
FLUSH_S: Final = 1.0
WRITE_TIMEOUT_S: Final = 1.0
MAX_WAITING: Final = 1_000
"""Events that wait while Redis is down. A limited route makes one a second, so this is several minutes."""
MAX_TRACKED: Final = 1_000
"""Clients that one event counts one by one."""
BATCH: Final = 100
"""Events in one round trip, which block the loop for about 2 ms."""


class _Bucket(NamedTuple):
    """Routes, policies and outcomes are few, so the buckets of a second are few as well."""

    second: int
    route: str
    policy: str
    outcome: Outcome


@dataclass(slots=True)
class _Tally:
    """`clients` holds the limited requests of each tracked address."""

    n: int = 0
    clients: dict[str, int] = field(default_factory=dict)


class RejectionCounters:
    """`hash_client` pseudonymises addresses."""

    def __init__(
        self, redis: Redis, hash_client: Callable[[str], str | None], now: Callable[[], float] = time.time
    ) -> None:
        self._redis = redis
        self._hash_client = hash_client
        self._now = now
        self._tallies: dict[_Bucket, _Tally] = {}
        self._waiting: deque[CounterEvent] = deque(maxlen=MAX_WAITING)
        self._is_failing = False

    def count(self, status: int, route: str, policy: str | None, client: str | None = None) -> None:
        """Count one response of the edge's own, and the address of a limited client.

        Ignores statuses that are neither a rejection nor a failure.
        """
        outcome = OUTCOMES.get(status)
        if outcome is None:
            return
        bucket = _Bucket(int(self._now()), route, policy or "", outcome)
        tally = self._tallies.get(bucket)
        if tally is None:
            tally = self._tallies[bucket] = _Tally()
        tally.n += 1
        if client is not None and (client in tally.clients or len(tally.clients) < MAX_TRACKED):
            tally.clients[client] = tally.clients.get(client, 0) + 1

    async def run(self) -> None:
        """Write each finished second until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush(int(self._now()))

    async def close(self) -> None:
        """Write everything within WRITE_TIMEOUT_S, or drop it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self.flush()

    async def flush(self, before_second: float = math.inf) -> None:
        """Write the seconds before this one. What cannot be written waits for the next flush.

        The ids of events are final, so an event that is written twice is counted once.
        """
        try:
            for bucket in [bucket for bucket in self._tallies if bucket.second < before_second]:
                self._waiting.append(self._event(bucket, self._tallies.pop(bucket)))
            while self._waiting:
                await self._write(list(islice(self._waiting, BATCH)))
        except Exception as error:  # a defect here must not stop the edge either
            if not self._is_failing:
                log.warning("rejection counters not written", error=type(error).__name__, waiting=len(self._waiting))
            self._is_failing = True
        else:
            self._is_failing = False

    async def _write(self, events: list[CounterEvent]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for event in events:
            pipeline.xadd(STREAM, {EVENT_FIELD: event.model_dump_json(exclude_none=True)})
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await pipeline.execute()
        for _ in events:
            self._waiting.popleft()

    def _event(self, bucket: _Bucket, tally: _Tally) -> CounterEvent:
        return CounterEvent(
            id=uuid7(),
            at_us=bucket.second * 1_000_000,
            route=bucket.route,
            outcome=bucket.outcome,
            policy=bucket.policy,
            n=tally.n,
            clients=self._most_limited(tally.clients),
        )

    def _most_limited(self, clients: dict[str, int]) -> tuple[LimitedClient, ...] | None:
        """None without clients, or without a key to hash them."""
        top = nlargest(MAX_CLIENTS, clients.items(), key=lambda item: item[1])
        hashed = ((self._hash_client(address), n) for address, n in top)
        return tuple(LimitedClient(client, n) for client, n in hashed if client is not None) or None

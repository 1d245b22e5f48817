"""Counts the requests that the edge rejected or failed, and writes the counts to the Redis stream.

A count is worth less than a request: a flood costs dictionary increments per request and one event per second, and
counts that cannot be written are retried for a while and then dropped. Addresses are hashed only in finished seconds,
and only those of the most limited clients.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
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
"""Clients of one second that are counted one by one, over all routes and policies."""
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
    """`hash_client` pseudonymises addresses; `dropped` is called with the number of events that were given up."""

    def __init__(
        self,
        redis: Redis,
        hash_client: Callable[[str], str | None],
        dropped: Callable[[int], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._redis = redis
        self._hash_client = hash_client
        self._dropped = dropped
        self._now = now
        self._tallies: dict[_Bucket, _Tally] = {}
        self._tracked_second = 0
        self._tracked = 0
        self._waiting: deque[CounterEvent] = deque()
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
        if client in tally.clients:
            tally.clients[client] += 1
        elif client is not None and self._may_track(bucket.second):
            tally.clients[client] = 1

    async def run(self) -> None:
        """Write each finished second until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            await self.flush(int(self._now()))

    async def close(self) -> None:
        """Write everything within WRITE_TIMEOUT_S, or drop it."""
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await self.flush()
        except TimeoutError:
            pass
        self._drop(len(self._waiting))

    async def flush(self, before_second: int | None = None) -> None:
        """Write the seconds before `before_second`, or all. What cannot be written waits for the next flush."""
        try:
            self._finish(before_second)
            while self._waiting:
                await self._write(list(islice(self._waiting, BATCH)))
        except Exception as error:  # a defect here must not stop the edge either
            if not self._is_failing:
                log.warning("rejection counters not written", error=type(error).__name__, waiting=len(self._waiting))
            self._is_failing = True
        else:
            self._is_failing = False

    def _may_track(self, second: int) -> bool:
        if second != self._tracked_second:
            self._tracked_second, self._tracked = second, 0
        self._tracked += 1
        return self._tracked <= MAX_TRACKED

    def _finish(self, before_second: int | None) -> None:
        """Turn counts into events. Their ids are final, so an event that is written twice is counted once."""
        for bucket in [b for b in self._tallies if before_second is None or b.second < before_second]:
            self._waiting.append(self._event(bucket, self._tallies.pop(bucket)))
        self._drop(len(self._waiting) - MAX_WAITING)

    async def _write(self, events: list[CounterEvent]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for event in events:
            pipeline.xadd(STREAM, {EVENT_FIELD: event.model_dump_json(exclude_none=True)})
        async with asyncio.timeout(WRITE_TIMEOUT_S):
            await pipeline.execute()
        for _ in events:
            self._waiting.popleft()

    def _drop(self, events: int) -> None:
        """Drop the oldest `events`."""
        if events > 0:
            for _ in range(events):
                self._waiting.popleft()
            self._dropped(events)

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

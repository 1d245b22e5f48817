"""Counts what the edge refused or failed itself: one event per second, route, policy and outcome, however many.

Nothing here is per request: a flood costs a dictionary increment, and one journal append each second.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from common.contracts.events import CounterEvent, Outcome
from common.http.context import uuid7

OUTCOMES: Final[dict[int, Outcome]] = {429: "limited", 502: "bad_gateway", 503: "unavailable", 504: "timeout"}
FLUSH_S: Final = 1.0
MAX_BUCKETS: Final = 10_000


class _Bucket(NamedTuple):
    second: int
    route: str
    policy: str
    outcome: Outcome


class Refusals:
    """`record` takes the finished seconds; what it raises leaves them here for the next flush."""

    def __init__(self, record: Callable[[Sequence[CounterEvent]], None], now: Callable[[], float] = time.time) -> None:
        self._record = record
        self._now = now
        self._counts: Counter[_Bucket] = Counter()

    def count(self, status: int, route: str, policy: str | None) -> None:
        """Count one answer of the edge's own; statuses that are not its failures or refusals are ignored."""
        outcome = OUTCOMES.get(status)
        if outcome is None:
            return
        bucket = _Bucket(int(self._now()), route, policy or "", outcome)
        if bucket in self._counts or len(self._counts) < MAX_BUCKETS:
            self._counts[bucket] += 1

    async def run(self) -> None:
        """Flush each second until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_S)
            self.flush(int(self._now()))

    def flush(self, before_second: int | None = None) -> None:
        """Record the seconds before `before_second`, or all. Raises what `record` raises."""
        done = {b: n for b, n in self._counts.items() if before_second is None or b.second < before_second}
        if not done:
            return
        self._record([_event(bucket, n) for bucket, n in done.items()])
        for bucket in done:
            del self._counts[bucket]


def _event(bucket: _Bucket, n: int) -> CounterEvent:
    return CounterEvent(
        id=uuid7(),
        at_us=bucket.second * 1_000_000,
        route=bucket.route,
        outcome=bucket.outcome,
        policy=bucket.policy,
        n=n,
    )

"""Publishes aggregates as they change. All followers of a window share one computation."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import structlog

from common.contracts.aggregates import AggregateRequest
from common.contracts.windows import Window
from metrics.errors import StoreUnavailable, TooManyFollowers, TooManyOfOneClient
from metrics.query.aggregate import Aggregates

log = structlog.get_logger()

HEARTBEAT_S: Final = 15.0
ONE_IN: Final = 10
"""The number of clients that use all streams if each uses its full share."""


class AggregateBroadcaster:
    """A slow follower skips messages but always gets the newest. Without followers nothing is computed."""

    def __init__(
        self, aggregates: Aggregates, *, interval_s: float, max_followers: int, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._aggregates = aggregates
        self._interval_s = interval_s
        self._heartbeat_s = heartbeat_s
        self._max_followers = max_followers
        self._share = max(1, max_followers // ONE_IN)
        self._followers: Counter[Window] = Counter()
        self._clients: Counter[str] = Counter()
        self._latest: dict[Window, bytes] = {}
        self._wanted = asyncio.Event()
        self._turn = asyncio.Event()
        self._is_stopping = False

    def stop(self) -> None:
        """End every follower's messages."""
        self._is_stopping = True
        self._turn.set()

    async def watch(self) -> NoReturn:
        """Compute each followed window once per interval."""
        while True:
            await self._wanted.wait()
            await self.publish()
            await asyncio.sleep(self._interval_s)

    async def publish(self) -> None:
        """Compute each followed window once and wake its followers."""
        for window in [*self._followers]:
            try:
                answer = await self._aggregates.answer(AggregateRequest(window=window))
            except StoreUnavailable as error:
                self._latest.pop(window, None)
                log.debug("live aggregate not computed", reason=str(error))  # also returned to each request
            except Exception:
                self._latest.pop(window, None)
                log.exception("live aggregate not computed")
            else:
                if window in self._followers:  # the followers may have left during the computation
                    self._latest[window] = answer.model_dump_json().encode()
        self._turn.set()
        if not self._is_stopping:
            self._turn = asyncio.Event()

    @contextmanager
    def following(self, window: Window, client: str) -> Iterator[AsyncIterator[bytes | None]]:
        """Yield the messages of `window` until `stop`: an aggregate as JSON, or None after a while without one.

        Raises TooManyOfOneClient and TooManyFollowers.
        """
        if self._clients[client] >= self._share:
            raise TooManyOfOneClient
        if self._followers.total() >= self._max_followers:
            raise TooManyFollowers
        self._clients[client] += 1
        self._followers[window] += 1
        self._wanted.set()
        try:
            yield self._messages(window)
        finally:
            self._clients -= Counter((client,))  # removes clients with a count of zero
            self._followers[window] -= 1
            if not self._followers[window]:
                del self._followers[window]
                self._latest.pop(window, None)
            if not self._followers:
                self._wanted.clear()

    async def _messages(self, window: Window) -> AsyncIterator[bytes | None]:
        seen: bytes | None = None
        quiet_until = self._quiet_until()
        while not self._is_stopping:
            turn = self._turn
            latest = self._latest.get(window)
            if latest is not None and latest is not seen:
                seen = latest
                yield latest
                quiet_until = self._quiet_until()
                continue
            try:
                async with asyncio.timeout_at(quiet_until):  # a round without a result also wakes this one
                    await turn.wait()
            except TimeoutError:
                yield None
                quiet_until = self._quiet_until()

    def _quiet_until(self) -> float:
        return asyncio.get_running_loop().time() + self._heartbeat_s

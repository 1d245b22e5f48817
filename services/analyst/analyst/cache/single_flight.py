"""Single flight: however many ask for one key, in however many processes, one computes and the rest are served.

It decides; where entries and leases live is the store's business, and a payload is opaque text. Algorithm: a task per
key in the process, then a lease per key in the store, taken in the same atomic step that re-checks the cache.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from analyst.cache.local import LocalCache
from analyst.cache.waiters import Completion, Waiters

State = Literal["HIT", "STALE", "REFRESH", "LEAD", "WAIT", "FAILED"]

FRESH_SHARE: Final = (0.8, 0.9)  # of its time; then it is refreshed, at a random point: keys don't expire together
WAKE_JITTER_S: Final = (0.01, 0.06)


class StoreUnavailable(Exception):
    """The shared store is down or too slow; nothing may be spent, because nobody else can know of it."""


class FlightFailed(Exception):
    """There is no result, and none is kept; `code` is what the computation, here or elsewhere, failed with."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class TooManyComputations(Exception):
    """This process computes as many keys as it may at once."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds: `ttl_s` served, `stale_s` kept after that in case of errors, `near_s` not looked up again."""

    ttl_s: float
    stale_s: float
    negative_s: float
    lease_s: float
    compute_s: float
    wait_s: float
    max_flights: int
    near_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Lifetime:
    """From its commit on: fresh until, served until, kept until."""

    fresh_s: float
    serve_s: float
    keep_s: float


@dataclass(frozen=True, slots=True)
class Entered:
    """The store's answer. `payload` also comes with LEAD when a copy past its time is kept, `owner` with WAIT."""

    state: State
    payload: str | None = None
    age_s: float = 0.0
    lease_s: float = 0.0
    owner: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Computed:
    """A result; a fallback is kept for seconds only, and only in place of a kept result that it `supersedes`."""

    payload: str
    is_fallback: bool = False
    supersedes: Callable[[str], bool] = lambda kept: False


@dataclass(frozen=True, slots=True)
class Served:
    """A result and where it came from."""

    payload: str
    cache: Literal["miss", "hit", "stale"]
    age_s: float = 0.0


Compute = Callable[[bool], Awaitable[Computed]]
"""Called with whether it may spend; raises FlightFailed."""


class FlightStore(Protocol):
    """Entries and leases, each method one atomic step; all raise StoreUnavailable."""

    async def enter(self, key: str, token: str, lease_s: float) -> Entered:
        """Re-check the cache and take the lease if it is free or already `token`'s, in one step."""

    async def commit(self, key: str, token: str, payload: str, lifetime: Lifetime) -> bool:
        """Store the result, end the lease and wake the waiters; False and nothing stored if the lease was lost."""

    async def fail(self, key: str, token: str, code: str, retry_s: float) -> bool:
        """End the lease; until `retry_s` have passed nobody leads: the kept copy is served, or the failure."""

    async def renew(self, key: str, token: str, lease_s: float) -> bool:
        """Extend the lease; False if it was lost."""

    async def release(self, key: str, token: str) -> None:
        """Hand the lease over without a result."""


class SingleFlightCache:
    """The flights of one process; `close` ends those in the air and hands their leases over."""

    def __init__(
        self,
        store: FlightStore,
        limits: Limits,
        *,
        now: Callable[[], float],
        uniform: Callable[[float, float], float],
        new_token: Callable[[], str],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._store = store
        self._limits = limits
        self._now = now
        self._uniform = uniform
        self._new_token = new_token
        self._on_error = on_error
        self._flights: dict[str, asyncio.Task[Served]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._wakeups = Waiters()
        self._near = LocalCache(limits.near_s, now)
        self.waiting = 0

    async def get(self, key: str, compute: Compute) -> Served:
        """The result for `key`, computed at most once at a time. Raises FlightFailed and FlightsFull."""
        if (copy := self._near.find(key)) is not None:
            return Served(copy[0], "hit", copy[1])
        flight = self._flights.get(key)
        if flight is None:
            if len(self._tasks) >= self._limits.max_flights:
                raise TooManyComputations
            flight = self._flights[key] = self._own(self._load(key, compute))
            flight.add_done_callback(lambda done: self._flights.pop(key) if self._flights.get(key) is done else None)
        self.waiting += 1
        try:
            return await asyncio.shield(flight)
        finally:
            self.waiting -= 1

    def wake(self, key: str, ended: Completion) -> None:
        """A flight for `key` ended somewhere: its waiters take the result, or look again."""
        self._wakeups.tell(key, ended)

    def wake_all(self) -> None:
        """Messages may have been missed: everybody looks again."""
        self._near.forget_all()
        self._wakeups.tell_all(Completion())

    def forget(self, key: str) -> None:
        """`key` was invalidated: who asks from now on gets nothing that was computed before."""
        self._flights.pop(key, None)
        self._near.forget(key)
        self.wake(key, Completion())

    def forget_all(self) -> None:
        self._flights.clear()
        self.wake_all()

    async def close(self) -> None:
        """Cancel what is in the air and wait until the leases are handed over."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _own(self, work: Coroutine[Any, Any, Served]) -> asyncio.Task[Served]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, FlightFailed):
            self._on_error(error)

    async def _load(self, key: str, compute: Compute) -> Served:
        token = self._new_token()
        deadline_s = self._now() + self._limits.wait_s
        while True:
            with self._wakeups.listening(key) as news:
                try:
                    entered = await self._store.enter(key, token, self._limits.lease_s)
                except StoreUnavailable:
                    return await self._load_uncached(compute)
                match entered.state:
                    case "HIT" | "STALE":
                        if entered.state == "HIT" and not news.done():  # which may say that it was invalidated
                            self._near.keep(key, entered.payload or "", entered.age_s)
                        return _served(entered)
                    case "REFRESH":
                        self._own(self._lead(key, token, compute, entered))
                        return _served(entered)
                    case "LEAD":
                        return await self._lead(key, token, compute, entered)
                    case "FAILED":
                        raise FlightFailed(entered.failure)
                    case "WAIT":
                        ended = await self._news(news, entered.lease_s, deadline_s)
                        if ended.payload is not None and ended.token == entered.owner:  # not of a flight before
                            return Served(ended.payload, "hit")

    async def _load_uncached(self, compute: Compute) -> Served:
        """Without a store: still one flight per process and key, nothing kept, nothing spent."""
        try:
            async with asyncio.timeout(self._limits.compute_s):
                return Served((await compute(False)).payload, "miss")
        except TimeoutError as error:
            raise FlightFailed("timeout") from error

    async def _news(self, news: asyncio.Future[Completion], lease_s: float, deadline_s: float) -> Completion:
        """What a message tells, or nothing when the leader's lease would have ended: it may be dead."""
        left_s = deadline_s - self._now()
        if left_s <= 0:
            raise FlightFailed("timeout")
        with suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, lease_s + self._uniform(*WAKE_JITTER_S))):
                return await news
        return Completion()

    async def _lead(self, key: str, token: str, compute: Compute, kept: Entered) -> Served:
        try:
            async with self._renewed(key, token):
                computed = await self._computed(compute)
            return await self._settle(key, token, computed, kept)
        except FlightFailed as error:
            await self._record_failure(key, token, error.code)
            if kept.payload is not None:
                return _served(kept)
            raise
        except asyncio.CancelledError:
            await asyncio.shield(self._release(key, token))
            raise
        except Exception:
            await self._record_failure(key, token, "error")
            raise

    async def _computed(self, compute: Compute) -> Computed:
        try:
            async with asyncio.timeout(self._limits.compute_s):
                return await compute(True)
        except TimeoutError as error:
            raise FlightFailed("timeout") from error

    async def _settle(self, key: str, token: str, computed: Computed, kept: Entered) -> Served:
        if computed.is_fallback and kept.payload is not None and not computed.supersedes(kept.payload):
            await self._record_failure(key, token, "fallback")
            return _served(kept)
        with suppress(StoreUnavailable):  # the result is good even where it cannot be kept
            await self._store.commit(key, token, computed.payload, self._lifetime(computed))
        return Served(computed.payload, "miss")

    def _lifetime(self, computed: Computed) -> Lifetime:
        limits = self._limits
        if computed.is_fallback:
            return Lifetime(limits.negative_s, limits.negative_s, limits.negative_s)
        return Lifetime(limits.ttl_s * self._uniform(*FRESH_SHARE), limits.ttl_s, limits.ttl_s + limits.stale_s)

    async def _record_failure(self, key: str, token: str, code: str) -> None:
        with suppress(StoreUnavailable):
            await self._store.fail(key, token, code, self._limits.negative_s)

    async def _release(self, key: str, token: str) -> None:
        with suppress(StoreUnavailable):
            await self._store.release(key, token)

    @asynccontextmanager
    async def _renewed(self, key: str, token: str) -> AsyncIterator[None]:
        """Keep the lease for as long as the computation runs."""
        renewing = asyncio.create_task(self._renew(key, token))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])

    async def _renew(self, key: str, token: str) -> None:
        held = True
        while held:
            await asyncio.sleep(self._limits.lease_s / 3)
            with suppress(StoreUnavailable):
                held = await self._store.renew(key, token, self._limits.lease_s)


def _served(entered: Entered) -> Served:
    return Served(entered.payload or "", "hit" if entered.state == "HIT" else "stale", entered.age_s)

"""A cache that computes each missing key once, over all processes.

One task per key in the process, then one lease per key in the store. The lease is taken in the same atomic step that
checks the cache a second time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

State = Literal["HIT", "STALE", "REFRESH", "COMPUTE", "WAIT", "FAILED"]

FRESH_SHARE: Final = (0.8, 0.9)  # of the TTL; refreshes start at a random point, so keys do not expire together
WAKE_JITTER_S: Final = (0.01, 0.06)


class StoreUnavailable(Exception):
    """The shared store is down or too slow. Other processes cannot see a computation, so it must be free."""


class FlightFailed(Exception):
    """The computation failed, here or in another process, and no earlier result is stored."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class TooManyComputations(Exception):
    """This process is already computing `max_computations` keys."""


@dataclass(frozen=True, slots=True)
class Limits:
    """A result is served for `ttl_s`, and `stale_s` longer when its computation fails."""

    ttl_s: float
    stale_s: float
    negative_s: float
    lease_s: float
    compute_s: float
    wait_s: float
    max_computations: int


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Seconds from the commit until the result is refreshed, no longer served, and deleted."""

    fresh_s: float
    serve_s: float
    keep_s: float


@dataclass(frozen=True, slots=True)
class Entered:
    """The store's decision. `payload` is an expired copy with COMPUTE; `owner` is set with WAIT."""

    state: State
    payload: str | None = None
    age_s: float = 0.0
    lease_s: float = 0.0
    owner: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Computed:
    """A result. A fallback is stored for seconds, and replaces a stored result only if it `supersedes` that."""

    payload: str
    is_fallback: bool = False
    supersedes: Callable[[str], bool] = lambda stored: False


@dataclass(frozen=True, slots=True)
class Served:
    """A result, its source, and its age in seconds."""

    payload: str
    cache: Literal["miss", "hit", "stale"]
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Completion:
    """A computation ended, or may have. `payload` is its result if the message carried one, `token` its owner."""

    token: str = ""
    payload: str | None = None


Compute = Callable[[bool], Awaitable[Computed]]
"""Called with `allow_llm`; raises FlightFailed."""


class FlightStore(Protocol):
    """Entries and leases. Each method is one atomic step; all raise StoreUnavailable."""

    async def enter(self, key: str, token: str, lease_s: float) -> Entered:
        """Check the cache again and take the lease if it is free or already held by `token`."""

    async def commit(self, key: str, token: str, payload: str, lifetime: Lifetime) -> bool:
        """Store the result, end the lease and wake the waiters. Return False if the lease was lost."""

    async def fail(self, key: str, token: str, code: str, retry_s: float) -> bool:
        """End the lease. For `retry_s` the stored copy or the failure is served, and no process computes."""

    async def renew(self, key: str, token: str, lease_s: float) -> bool:
        """Extend the lease. Return False if it was lost."""

    async def release(self, key: str, token: str) -> None:
        """End the lease without a result, so that a waiter takes it."""


class SingleFlightCache:
    """The computations of one process. `close` cancels them and releases their leases."""

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
        self._waiters = Waiters()
        self._computing = 0
        self.waiting = 0

    async def get(self, key: str, compute: Compute) -> Served:
        """Return the result for `key`. Raises FlightFailed and TooManyComputations."""
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = self._own(self._load(key, compute))
            flight.add_done_callback(lambda done: self._flights.pop(key) if self._flights.get(key) is done else None)
        self.waiting += 1
        try:
            return await asyncio.shield(flight)
        finally:
            self.waiting -= 1

    def wake(self, key: str, completion: Completion) -> None:
        """Pass a completion to the waiters of `key`."""
        self._waiters.notify(key, completion)

    def wake_all(self) -> None:
        """Make every waiter check the store again, after messages may have been lost."""
        self._waiters.notify_all(Completion())

    def forget(self, key: str) -> None:
        """`key` was invalidated: later requests do not join its current computation."""
        self._flights.pop(key, None)
        self.wake(key, Completion())

    def forget_all(self) -> None:
        self._flights.clear()
        self.wake_all()

    async def close(self) -> None:
        """Cancel all computations and wait until their leases are released."""
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
        expected = (FlightFailed, TooManyComputations)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, expected):
            self._on_error(error)

    async def _load(self, key: str, compute: Compute) -> Served:
        token = self._new_token()
        deadline_s = self._now() + self._limits.wait_s
        while True:
            with self._waiters.listening(key) as completion:
                try:
                    entered = await self._store.enter(key, token, self._limits.lease_s)
                except StoreUnavailable:
                    return await self._load_uncached(compute)
                match entered.state:
                    case "HIT" | "STALE":
                        return _served(entered)
                    case "REFRESH":
                        self._own(self._lead(key, token, compute, entered))
                        return _served(entered)
                    case "COMPUTE":
                        return await self._lead(key, token, compute, entered)
                    case "FAILED":
                        raise FlightFailed(entered.failure)
                    case "WAIT":
                        ended = await self._wait(completion, entered.lease_s, deadline_s)
                        if ended.payload is not None and ended.token == entered.owner:  # not an earlier computation
                            return Served(ended.payload, "hit")

    async def _load_uncached(self, compute: Compute) -> Served:
        """Without the store: one computation per process and key, stored nowhere, without the model."""
        try:
            async with self._slot(), asyncio.timeout(self._limits.compute_s):
                return Served((await compute(False)).payload, "miss")
        except TimeoutError as error:
            raise FlightFailed("timeout") from error

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._computing >= self._limits.max_computations:
            raise TooManyComputations
        self._computing += 1
        try:
            yield
        finally:
            self._computing -= 1

    async def _wait(self, completion: asyncio.Future[Completion], lease_s: float, deadline_s: float) -> Completion:
        """Return the next completion, or an empty one when the owner's lease has expired."""
        left_s = deadline_s - self._now()
        if left_s <= 0:
            raise FlightFailed("timeout")
        with suppress(TimeoutError):
            async with asyncio.timeout(min(left_s, lease_s + self._uniform(*WAKE_JITTER_S))):
                return await completion
        return Completion()

    async def _lead(self, key: str, token: str, compute: Compute, stored: Entered) -> Served:
        try:
            async with self._slot(), self._renewed(key, token):
                computed = await self._computed(compute)
            return await self._settle(key, token, computed, stored)
        except TooManyComputations:
            await self._release(key, token)
            if stored.payload is not None:
                return _served(stored)
            raise
        except FlightFailed as error:
            await self._record_failure(key, token, error.code)
            if stored.payload is not None:
                return _served(stored)
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

    async def _settle(self, key: str, token: str, computed: Computed, stored: Entered) -> Served:
        if computed.is_fallback and stored.payload is not None and not computed.supersedes(stored.payload):
            await self._record_failure(key, token, "fallback")
            return _served(stored)
        with suppress(StoreUnavailable):  # the result is valid even if it cannot be stored
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
        """Renew the lease while the body runs."""
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


class Waiters:
    """Tasks of this process that wait for a completion, by key."""

    def __init__(self) -> None:
        self._listeners: dict[str, set[asyncio.Future[Completion]]] = {}

    @contextmanager
    def listening(self, key: str) -> Iterator[asyncio.Future[Completion]]:
        """Yield the next completion of `key`. Listen before checking the store, so that none is missed."""
        completion: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        listeners = self._listeners.setdefault(key, set())
        listeners.add(completion)
        try:
            yield completion
        finally:
            listeners.discard(completion)
            if not listeners:
                self._listeners.pop(key, None)

    def notify(self, key: str, completion: Completion) -> None:
        for listener in self._listeners.get(key, ()):
            if not listener.done():
                listener.set_result(completion)

    def notify_all(self, completion: Completion) -> None:
        for key in self._listeners:
            self.notify(key, completion)

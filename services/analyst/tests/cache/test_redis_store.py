import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot
from structlog.testing import capture_logs

from analyst.cache.redis_store import CHANNEL, ENDED, Listener, RedisFlightStore, listen
from analyst.cache.single_flight import (
    Computed,
    Entered,
    FlightFailed,
    Lifetime,
    Limits,
    Served,
    SingleFlightCache,
    StoreUnavailable,
)
from common.runtime.settings import RedisSettings
from common.stores.redis import create_client
from launcher.valkey import Valkey

LONG = Lifetime(60, 120, 3600)
LIMITS = Limits(ttl_s=300, stale_s=3600, negative_s=5, lease_s=30, compute_s=20, wait_s=60, max_computations=100)
PATIENCE_S = 20.0  # less than a lease
HUNG_S = 3.0  # a busy machine may pause for this long
ENTRY = "analyst:report:{key}:entry"
LEASE = "analyst:report:{key}:lease"

OpenFlights = Callable[..., Awaitable[SingleFlightCache]]


def _client(valkey: Valkey, timeout_s: float = PATIENCE_S) -> Redis:
    settings = RedisSettings.model_validate(
        {
            "redis_host": valkey.host,
            "redis_port": valkey.port,
            "redis_password": valkey.password,
            "redis_timeout_s": timeout_s,
        }
    )
    return create_client(settings)


@pytest.fixture
async def redis(valkey: Valkey, redis_url: str) -> AsyncIterator[Redis]:
    async with _client(valkey) as client:
        yield client


@pytest.fixture
def store(redis: Redis) -> RedisFlightStore:
    return RedisFlightStore(redis)


@pytest.fixture
async def open_flights(valkey: Valkey, redis_url: str) -> AsyncIterator[OpenFlights]:
    """Call it for the flights of one more replica: its own connections, its own subscription, already heard."""
    async with AsyncExitStack() as stack:

        async def open_one(
            server: Valkey = valkey, limits: Limits = LIMITS, *, heard: bool = True, timeout_s: float = PATIENCE_S
        ) -> SingleFlightCache:
            client = await stack.enter_async_context(_client(server, timeout_s))
            flights = SingleFlightCache(
                RedisFlightStore(client),
                limits,
                now=time.monotonic,
                uniform=min,
                new_token=lambda: os.urandom(8).hex(),
                on_error=lambda error: None,
            )
            subscribed = asyncio.Event()

            def missed() -> None:
                flights.wake_all()
                subscribed.set()

            listening = asyncio.create_task(listen(client, Listener(flights.wake, flights.forget, missed), min))
            stack.push_async_callback(_end, listening)
            stack.push_async_callback(flights.close)
            if heard:
                await subscribed.wait()
            return flights

        yield open_one


class Paged(Redis):
    """A client of which something else happens at the server after the third page of a SCAN."""

    pages = 0
    happens: Callable[[], Awaitable[Any]]

    async def scan(self, *args: Any, **options: Any) -> Any:
        page = await super().scan(*args, **options)
        self.pages += 1
        if self.pages == 3:
            await self.happens()
        return page


async def _end(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait([task])


class Computation:
    """As slow as the test wants; counts its runs over all replicas."""

    def __init__(self, payload: str = "report") -> None:
        self.payload = payload
        self.runs = 0
        self.spent = 0
        self.started = asyncio.Event()
        self.finish = asyncio.Event()

    async def __call__(self, allow_llm: bool) -> Computed:
        self.runs += 1
        self.spent += allow_llm
        self.started.set()
        await self.finish.wait()
        return Computed(self.payload, is_fallback=not allow_llm)


class Failing(Computation):
    async def __call__(self, allow_llm: bool) -> Computed:
        await super().__call__(allow_llm)
        raise FlightFailed("metrics_unavailable")


async def _asked(redis: Redis, calls: int) -> None:
    """Until the server has run that many scripts."""
    while await _calls(redis, "evalsha") < calls:
        await asyncio.sleep(0)


async def _calls(redis: Redis, command: str) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])


# ---- the scripts


async def test_first_to_enter__leads_and_the_next_waits(store: RedisFlightStore, redis: Redis) -> None:
    assert (await store.enter("key", "a", 30)).state == "COMPUTE"
    waiting = await store.enter("key", "b", 30)
    assert (waiting.state, waiting.owner) == ("WAIT", "a")
    assert 10 < await redis.pttl(LEASE) / 1000 <= waiting.lease_s <= 30


async def test_enter__accepts_its_own_token(store: RedisFlightStore) -> None:
    await store.enter("key", "a", 30)
    assert (await store.enter("key", "a", 30)).state == "COMPUTE"


async def test_committed_result__is_a_hit_and_the_lease_is_gone(store: RedisFlightStore, redis: Redis) -> None:
    await store.enter("key", "a", 30)
    assert await store.commit("key", "a", "ré\x00port", LONG)
    hit = await store.enter("key", "b", 30)
    assert (hit.state, hit.payload) == ("HIT", "ré\x00port")
    assert hit.age_s < 5
    assert await redis.exists(LEASE) == 0


async def test_soft_expiry__one_refreshes_and_the_rest_get_the_old(store: RedisFlightStore, redis: Redis) -> None:
    await store.enter("key", "a", 30)
    await store.commit("key", "a", "old", LONG)
    await redis.hset(ENTRY, "fresh_until_ms", 0)
    assert [(await store.enter("key", token, 30)).state for token in "bcd"] == ["REFRESH", "STALE", "STALE"]


async def test_result_past_its_time__comes_with_the_lead_only(store: RedisFlightStore, redis: Redis) -> None:
    await store.enter("key", "a", 30)
    await store.commit("key", "a", "old", LONG)
    await redis.hset(ENTRY, mapping={"fresh_until_ms": 0, "serve_until_ms": 0})
    lead, wait = await store.enter("key", "b", 30), await store.enter("key", "c", 30)
    assert (lead.state, lead.payload) == ("COMPUTE", "old")
    assert (wait.state, wait.payload) == ("WAIT", None)


async def test_result__is_fresh_then_refreshed_then_only_kept_and_comes_with_its_age(
    store: RedisFlightStore, redis: Redis
) -> None:
    await store.enter("key", "a", 30)
    await store.commit("key", "a", "report", LONG)
    seen = []
    for passed_s, age_s in ((40, 40), (40, 80), (60, 140)):
        for field in ("stored_ms", "fresh_until_ms", "serve_until_ms"):
            await redis.hincrby(ENTRY, field, -1000 * passed_s)
        first, second = await store.enter("key", "b", 30), await store.enter("key", "c", 30)
        await store.fail("key", "b", "timeout", 30)
        third = await store.enter("key", "c", 30)
        await redis.hdel(ENTRY, "retry_at_ms")
        seen.append([entered.state for entered in (first, second, third)])
        for entered in (first, second, third):
            assert entered.state == "WAIT" or age_s <= entered.age_s < age_s + PATIENCE_S
    assert seen == [["HIT", "HIT", "HIT"], ["REFRESH", "STALE", "STALE"], ["COMPUTE", "WAIT", "STALE"]]


async def test_commit_without_the_lease__stores_nothing(store: RedisFlightStore, redis: Redis) -> None:
    assert not await store.commit("key", "a", "report", LONG)
    await store.enter("key", "b", 30)
    assert not await store.commit("key", "a", "report", LONG)
    assert await redis.exists(ENTRY) == 0


async def test_commit__sets_the_time_that_a_copy_is_kept(store: RedisFlightStore, redis: Redis) -> None:
    await store.enter("key", "a", 30)
    await store.commit("key", "a", "report", LONG)
    assert 3_590_000 < await redis.pttl(ENTRY) <= 3_600_000


async def test_failure__is_told_to_those_who_enter_and_forgotten_after_seconds(
    store: RedisFlightStore, redis: Redis
) -> None:
    await store.enter("key", "a", 30)
    assert await store.fail("key", "a", "metrics_unavailable", 5)
    assert await store.enter("key", "b", 30) == Entered("FAILED", failure="metrics_unavailable")
    assert 0 < await redis.pttl(ENTRY) <= 5000
    await redis.hset(ENTRY, "retry_at_ms", 0)
    assert (await store.enter("key", "b", 30)).state == "COMPUTE"


async def test_failure_with_a_kept_copy__serves_it_and_keeps_it(store: RedisFlightStore, redis: Redis) -> None:
    await store.enter("key", "a", 30)
    await store.commit("key", "a", "old", LONG)
    await redis.hset(ENTRY, mapping={"fresh_until_ms": 0, "serve_until_ms": 0})
    await store.enter("key", "b", 30)
    await store.fail("key", "b", "timeout", 5)
    stale = await store.enter("key", "c", 30)
    assert (stale.state, stale.payload) == ("STALE", "old")
    assert await redis.pttl(ENTRY) > 3_590_000
    await redis.hincrby(ENTRY, "retry_at_ms", -5000)
    assert (await store.enter("key", "c", 30)).state == "COMPUTE"


async def test_failure_of_a_lost_lease__is_not_recorded(store: RedisFlightStore, redis: Redis) -> None:
    await store.enter("key", "a", 30)
    assert not await store.fail("key", "b", "timeout", 5)
    assert await redis.exists(ENTRY) == 0


async def test_renewal__extends_only_an_own_lease(store: RedisFlightStore, redis: Redis) -> None:
    await store.enter("key", "a", 5)
    assert await store.renew("key", "a", 60)
    assert not await store.renew("key", "b", 60)
    assert await redis.pttl(LEASE) > 50_000


async def test_release__ends_only_an_own_lease(store: RedisFlightStore, redis: Redis) -> None:
    await store.enter("key", "a", 30)
    await store.release("key", "b")
    assert await redis.exists(LEASE) == 1
    await store.release("key", "a")
    assert await redis.exists(LEASE) == 0


async def test_invalidation__drops_results_and_revokes_leases(store: RedisFlightStore, redis: Redis) -> None:
    for number in range(1200):
        await store.enter(f"k{number}", "a", 30)
        await store.commit(f"k{number}", "a", "report", LONG)
    await store.enter("in the air", "a", 30)
    await store.enter("failed", "a", 30)
    await store.fail("failed", "a", "timeout", 60)
    await redis.set("somebody else's", "1")
    assert await store.invalidate_all() == 1200
    assert not await store.commit("in the air", "a", "report", LONG)
    assert await redis.keys("*") == ["somebody else's"]


async def test_result_stored_while_keys_are_scanned__is_dropped_if_it_was_begun_before(
    store: RedisFlightStore, redis: Redis
) -> None:
    await redis.mset({f"somebody else's {number}": "1" for number in range(3000)})  # several pages
    started = [f"k{number}" for number in range(40)]  # where in the scan each is found is up to the server
    for key in started:
        await store.enter(key, "a", 30)

    async def stored() -> None:
        for key in started:
            await store.commit(key, "a", "report", LONG)

    paged = Paged(connection_pool=redis.connection_pool)
    paged.happens = stored
    await RedisFlightStore(paged).invalidate_all()
    assert paged.pages > 3
    assert [(await store.enter(key, "b", 30)).state for key in started] == ["COMPUTE"] * len(started)


async def test_invalidation__never_uses_keys(store: RedisFlightStore, redis: Redis) -> None:
    await redis.config_resetstat()
    await store.invalidate_all()
    assert await _calls(redis, "keys") == 0
    assert await _calls(redis, "scan") > 0


async def test_script_cache_lost__is_loaded_again(store: RedisFlightStore, redis: Redis) -> None:
    await store.enter("key", "a", 30)
    await redis.script_flush()
    assert (await store.enter("key", "b", 30)).state == "WAIT"


def test_keys_of_one_report__share_a_cluster_slot() -> None:
    assert key_slot(ENTRY.encode()) == key_slot(LEASE.encode())


# ---- replicas


async def test_fifty_requests_at_each_of_three_replicas__compute_once(open_flights: OpenFlights, redis: Redis) -> None:
    replicas = [await open_flights() for _ in range(3)]
    computation = Computation()
    computation.finish.set()
    await replicas[0].get("another key", computation)  # loads the scripts
    computation = Computation()
    await redis.config_resetstat()
    asked = [asyncio.create_task(replica.get("key", computation)) for replica in replicas for _ in range(50)]
    await _asked(redis, 3)
    computation.finish.set()
    served = await asyncio.gather(*asked)
    assert computation.runs == 1
    assert {result.payload for result in served} == {"report"}
    scripts = await _calls(redis, "evalsha")
    assert scripts == 4  # 3 × ENTER and one COMMIT, which publishes the result: 0.03 a request
    assert await _calls(redis, "eval") == 0


async def test_waiter__is_woken_by_the_message_not_by_the_timer(open_flights: OpenFlights, redis: Redis) -> None:
    leader, waiter = await open_flights(), await open_flights()
    computation = Computation()
    await redis.config_resetstat()
    first = asyncio.create_task(leader.get("key", computation))
    await computation.started.wait()
    second = asyncio.create_task(waiter.get("key", computation))
    await _asked(redis, 2)  # it waits
    computation.finish.set()
    async with asyncio.timeout(PATIENCE_S):  # the lease is 30 s
        assert (await first).cache == "miss"
        assert (await second).payload == "report"


async def test_leading_replica_stops__a_waiter_leads_at_once(open_flights: OpenFlights, redis: Redis) -> None:
    leader, waiter = await open_flights(), await open_flights()
    lost, computation = Computation(), Computation()
    await redis.config_resetstat()
    first = asyncio.create_task(_ignore(leader.get("key", lost)))
    await lost.started.wait()
    asked = asyncio.create_task(waiter.get("key", computation))
    await _asked(redis, 2)  # it waits
    await leader.close()
    computation.finish.set()
    async with asyncio.timeout(PATIENCE_S):
        assert await asked == Served("report", "miss")
        await first
    assert (lost.runs, computation.runs) == (1, 1)


async def test_computation_that_fails__is_told_to_other_replicas_at_once(
    open_flights: OpenFlights, redis: Redis
) -> None:
    leader, waiter = await open_flights(), await open_flights()
    computation = Failing()
    await redis.config_resetstat()
    asked = [asyncio.create_task(flights.get("key", computation)) for flights in (leader, waiter)]
    await _asked(redis, 2)
    computation.finish.set()
    async with asyncio.timeout(PATIENCE_S):  # the lease is 30 s
        for each in asked:
            with pytest.raises(FlightFailed, match="metrics_unavailable"):
                await each
    assert computation.runs == 1


async def test_computation_longer_than_the_lease__keeps_it(open_flights: OpenFlights, redis: Redis) -> None:
    short = Limits(ttl_s=300, stale_s=0, negative_s=5, lease_s=4.8, compute_s=30, wait_s=30, max_computations=9)
    leader, waiter = await open_flights(limits=short), await open_flights(limits=short)
    computation = Computation()
    await redis.config_resetstat()
    asked = [asyncio.create_task(flights.get("key", computation)) for flights in (leader, waiter)]
    await _asked(redis, 7)  # both enter, four renewals by 6.4 s, and the waiter looks again when a lease has passed
    computation.finish.set()
    assert {(await served).payload for served in asked} == {"report"}
    assert computation.runs == 1


async def test_invalidation_in_flight__stores_nothing_and_joins_nobody(
    open_flights: OpenFlights, store: RedisFlightStore, redis: Redis
) -> None:
    replica = await open_flights()
    before, after = Computation("before"), Computation("after")
    old = asyncio.create_task(replica.get("key", before))
    await before.started.wait()
    await store.invalidate_all()
    replica.forget_all()
    new = asyncio.create_task(replica.get("key", after))
    await after.started.wait()
    before.finish.set()
    assert (await old).payload == "before"
    assert await redis.exists(ENTRY) == 0
    after.finish.set()
    assert (await new).payload == "after"
    assert await redis.hget(ENTRY, "payload") == "after"
    assert (before.runs, after.runs) == (1, 1)


async def test_invalidation_elsewhere__is_heard(open_flights: OpenFlights, store: RedisFlightStore) -> None:
    replica = await open_flights()
    before, after = Computation("before"), Computation("after")
    old = asyncio.create_task(replica.get("key", before))
    await before.started.wait()
    await store.invalidate_all()
    async with asyncio.timeout(PATIENCE_S):
        while not after.started.is_set():  # until the message arrives, requests join the old computation
            await _ignore(asyncio.wait_for(replica.get("key", after), 0.02))
    before.finish.set()
    after.finish.set()
    assert (await old).payload == "before"
    assert (await replica.get("key", after)).payload == "after"


async def test_connections_cut__subscription_returns_and_waiters_look_again(
    open_flights: OpenFlights, redis: Redis
) -> None:
    leader, waiter = await open_flights(), await open_flights()
    computation = Computation()
    asked = [asyncio.create_task(leader.get("key", computation))]
    await computation.started.wait()
    asked.append(asyncio.create_task(waiter.get("key", computation)))
    await redis.client_kill_filter(_type="pubsub")
    computation.finish.set()
    async with asyncio.timeout(PATIENCE_S):
        assert {(await served).payload for served in asked} == {"report"}
    assert computation.runs == 1


async def test_server_restarted_between_requests__costs_no_fallback(
    open_flights: OpenFlights, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    replica = await open_flights(server)
    computation = Computation()
    computation.finish.set()
    await replica.get("one", computation)
    server.stop()
    server.start()
    await replica.get("two", computation)
    assert (await replica.get("two", computation)).cache == "hit"


@pytest.mark.parametrize("strange", [b"done of-another-version", b"\xff"])
async def test_message_that_nobody_understands__does_not_end_the_subscription(redis: Redis, strange: bytes) -> None:
    subscribed: asyncio.Queue[None] = asyncio.Queue()
    heard: asyncio.Queue[str] = asyncio.Queue()
    listener = Listener(lambda key, ended: heard.put_nowait(key), lambda key: None, lambda: subscribed.put_nowait(None))
    listening = asyncio.create_task(listen(redis, listener, min))
    try:
        async with asyncio.timeout(20):
            await subscribed.get()
            await redis.publish(CHANNEL, strange)
            await subscribed.get()
            await redis.publish(CHANNEL, f"{ENDED}key")
            assert await heard.get() == "key"
    finally:
        await _end(listening)


async def test_server_that_goes_away__is_logged_once_and_so_is_its_return(
    own_valkey: Callable[..., Valkey],
) -> None:
    server = own_valkey()
    subscribed: asyncio.Queue[None] = asyncio.Queue()
    tries: asyncio.Queue[None] = asyncio.Queue()

    def at_once(*_: float) -> float:
        tries.put_nowait(None)
        return 0.0

    listener = Listener(lambda key, ended: None, lambda key: None, lambda: subscribed.put_nowait(None))
    async with _client(server) as redis, asyncio.timeout(60):
        with capture_logs() as logs:
            listening = asyncio.create_task(listen(redis, listener, at_once))
            try:
                await subscribed.get()
                for _ in range(2):
                    server.stop()
                    for _ in range(3):
                        await tries.get()
                    server.start()
                    await subscribed.get()
            finally:
                await _end(listening)
    assert [(entry["log_level"], entry["event"]) for entry in logs] == 2 * [
        ("warning", "cache unreachable: reports are not stored"),
        ("info", "cache reachable again"),
    ]


async def test_server_that_cannot_save__stays_subscribed_to(
    own_valkey: Callable[..., Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes no writes and refuses even to be pinged, which is an answer."""
    monkeypatch.setattr("analyst.cache.redis_store._IDLE_S", 0.05)
    server = own_valkey(save="3600 1")
    (server.state / "dump.rdb").mkdir()
    subscribed: asyncio.Queue[None] = asyncio.Queue()
    listener = Listener(lambda key, ended: None, lambda key: None, lambda: subscribed.put_nowait(None))
    async with _client(server) as redis, asyncio.timeout(60):
        with capture_logs() as logs:
            listening = asyncio.create_task(listen(redis, listener, min))
            try:
                await subscribed.get()
                await redis.bgsave()
                while (await redis.info("commandstats")).get("cmdstat_ping", {}).get("rejected_calls", 0) < 5:
                    await asyncio.sleep(0.01)
            finally:
                await _end(listening)
    assert subscribed.empty() and logs == []


@pytest.mark.parametrize("turns", range(0, 60, 3))
async def test_cancellation_at_any_moment__ends_the_subscription(redis: Redis, turns: int) -> None:
    listening = asyncio.create_task(
        listen(redis, Listener(lambda key, ended: None, lambda key: None, lambda: None), min)
    )
    await _turns(turns)
    async with asyncio.timeout(PATIENCE_S):
        await _end(listening)


@pytest.mark.parametrize("turns", range(2, 60, 3))
async def test_close_at_any_moment__ends_the_flight(open_flights: OpenFlights, turns: int) -> None:
    flights = await open_flights(heard=False)
    asked = asyncio.create_task(_ignore(flights.get("key", Computation())))
    await _turns(turns)
    async with asyncio.timeout(PATIENCE_S):
        await flights.close()
        asked.cancel()
        await asked


# ---- an unavailable server


async def test_server_absent__answers_without_spending(
    open_flights: OpenFlights, own_valkey: Callable[..., Valkey], redis: Redis
) -> None:
    server = own_valkey()
    server.stop()
    replica = await open_flights(server, heard=False)
    computation = Computation()
    computation.finish.set()
    assert await replica.get("key", computation) == Served("report", "miss")
    assert computation.runs == 1


async def test_server_hung__answers_within_its_timeout(
    open_flights: OpenFlights, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    replica = await open_flights(server, timeout_s=HUNG_S)
    assert server.process is not None
    computation = Computation()
    computation.finish.set()
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10 * HUNG_S):
            assert await replica.get("key", computation) == Served("report", "miss")
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


async def test_server_restarted_in_flight__costs_one_more_lead_at_most(
    open_flights: OpenFlights, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    leader, waiter = await open_flights(server), await open_flights(server)
    computation = Computation()
    asked = [asyncio.create_task(leader.get("key", computation)) for _ in range(10)]
    await computation.started.wait()
    asked += [asyncio.create_task(waiter.get("key", computation)) for _ in range(10)]
    server.stop()
    server.start()  # without what it knew
    async with asyncio.timeout(PATIENCE_S):
        while computation.runs < 2:
            await asyncio.sleep(0)
        computation.finish.set()
        assert {(await served).payload for served in asked} == {"report"}
    assert computation.spent <= 2


async def test_server_hung_in_flight__everybody_is_served_for_one_call(
    open_flights: OpenFlights, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    short = replace(LIMITS, lease_s=0.5)
    leader, waiter = [await open_flights(server, short, timeout_s=HUNG_S) for _ in range(2)]
    assert server.process is not None
    computation = Computation()
    asked = [asyncio.create_task(leader.get("key", computation)) for _ in range(10)]
    await computation.started.wait()
    asked += [asyncio.create_task(waiter.get("key", computation)) for _ in range(10)]
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        computation.finish.set()
        async with asyncio.timeout(10 * HUNG_S):
            assert {(await served).payload for served in asked} == {"report"}
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    assert computation.spent == 1


async def test_server_absent__is_named_as_such(own_valkey: Callable[..., Valkey]) -> None:
    server = own_valkey()
    server.stop()
    async with _client(server) as client:
        store = RedisFlightStore(client)
        with pytest.raises(StoreUnavailable):
            await store.enter("key", "a", 30)
        with pytest.raises(StoreUnavailable):
            await store.invalidate_all()


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def _ignore(work: Awaitable[Served]) -> None:
    try:
        await work
    except (asyncio.CancelledError, TimeoutError, FlightFailed):
        return


async def test_what_was_stored_before_the_clock_was_set_back__is_not_served_until_then(
    store: RedisFlightStore, redis: Redis
) -> None:
    async def set_back(*fields: str) -> None:
        for field in fields:
            await redis.hincrby(ENTRY, field, 3_600_000)

    await store.enter("key", "a", 30)
    await store.commit("key", "a", "report", LONG)
    await set_back("stored_ms", "fresh_until_ms", "serve_until_ms")
    assert await store.enter("key", "b", 30) == Entered("COMPUTE")
    await store.fail("key", "b", "busy", 60)
    assert await store.enter("key", "c", 30) == Entered("FAILED", failure="busy")
    await set_back("failed_ms", "retry_at_ms")
    assert await store.enter("key", "c", 30) == Entered("COMPUTE")

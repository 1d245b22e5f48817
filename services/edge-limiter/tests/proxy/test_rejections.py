import asyncio
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from common.contracts.events import EVENT_ADAPTER, EVENT_FIELD, STREAM, CounterEvent
from common.journal.recorder import ClientHasher
from common.runtime.settings import RedisSettings
from common.stores.redis import create_client
from edge_limiter.proxy.rejections import BATCH, MAX_TRACKED, MAX_WAITING, RejectionCounters
from launcher.valkey import Valkey

Connect = Callable[[int, str], Redis]

HASHER = ClientHasher("key")


@pytest.fixture(autouse=True)
def patient_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow a busy machine time to write."""
    monkeypatch.setattr("edge_limiter.proxy.rejections.WRITE_TIMEOUT_S", 60.0)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Call it with a port and a password for a client like the edge's."""
    async with AsyncExitStack() as stack:

        def client(port: int, password: str) -> Redis:
            values = {"redis_host": "127.0.0.1", "redis_port": port, "redis_password": password, "redis_timeout_s": 60}
            redis = create_client(RedisSettings.model_validate(values))
            stack.push_async_callback(redis.aclose)
            return redis

        yield client


@pytest.fixture
def redis(redis_url: str, valkey: Valkey, connect: Connect) -> Redis:
    return connect(valkey.port, valkey.password)


async def written(redis: Redis) -> list[CounterEvent]:
    entries: Any = await redis.xrange(STREAM)
    events = [EVENT_ADAPTER.validate_json(fields[EVENT_FIELD]) for _, fields in entries]
    return [event for event in events if isinstance(event, CounterEvent)]


async def test_flood__becomes_one_event_per_second_route_policy_and_outcome(redis: Redis) -> None:
    now = [100.2]
    counters = RejectionCounters(redis, HASHER, lambda: now[0])
    for _ in range(1_000):
        counters.count(429, "/predict", "predict")
    counters.count(502, "/metrics", None)
    counters.count(404, "/metrics", None)
    now[0] = 101.0
    counters.count(429, "/predict", "predict")
    await counters.flush(before_second=101)
    assert [(e.at_us, e.route, e.policy, e.outcome, e.n) for e in await written(redis)] == [
        (100_000_000, "/predict", "predict", "limited", 1_000),
        (100_000_000, "/metrics", "", "bad_gateway", 1),
    ]
    await counters.close()
    await counters.close()
    assert [event.n for event in await written(redis)] == [1_000, 1, 1]


async def test_seconds_counted_while_redis_is_down__arrive_once_when_it_is_back(
    own_valkey: Callable[[], Valkey], connect: Connect
) -> None:
    server, now = own_valkey(), [0.0]
    redis = connect(server.port, server.password)
    counters = RejectionCounters(redis, HASHER, lambda: now[0])
    await redis.ping()
    server.kill()
    seconds = BATCH + 50
    for second in range(seconds):
        now[0] = second
        counters.count(429, "/predict", "predict")
        await counters.flush()
    server.start()
    await counters.flush()
    await counters.flush()
    assert [event.at_us // 1_000_000 for event in await written(redis)] == list(range(seconds))


async def test_events_that_wait_for_redis__are_bounded_and_the_oldest_are_dropped(
    own_valkey: Callable[[], Valkey], connect: Connect
) -> None:
    server, now = own_valkey(), [0.0]
    redis = connect(server.port, server.password)
    counters = RejectionCounters(redis, HASHER, lambda: now[0])
    server.kill()
    for second in range(MAX_WAITING + 5):
        now[0] = second
        counters.count(504, "/predict", None)
    await counters.flush()
    server.start()
    await counters.flush()
    assert [event.at_us // 1_000_000 for event in await written(redis)] == list(range(5, MAX_WAITING + 5))


async def test_redis_that_never_replies__ends_a_flush_after_the_write_timeout(
    connect: Connect, start_raw_upstream: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    monkeypatch.setattr("edge_limiter.proxy.rejections.WRITE_TIMEOUT_S", 0.05)
    port = int((await start_raw_upstream(hang)).rpartition(":")[2])
    counters = RejectionCounters(connect(port, ""), HASHER, lambda: 1.0)
    counters.count(503, "/predict", "predict")
    async with asyncio.timeout(30):  # the client itself would wait for 60 s
        await counters.flush()


def hashed(clients: dict[str, int]) -> tuple[tuple[str | None, int], ...]:
    return tuple((HASHER(address), n) for address, n in clients.items())


async def test_limited_requests__name_the_five_most_limited_clients_of_each_route(redis: Redis) -> None:
    counters = RejectionCounters(redis, HASHER, lambda: 1.0)
    for number in range(1, 9):
        for _ in range(number):
            counters.count(429, "/predict", "predict", f"192.0.2.{number}")
    counters.count(429, "/metrics", "metrics", "192.0.2.1")
    counters.count(503, "/predict", "predict")
    await counters.close()
    predict, metrics, unavailable = await written(redis)
    assert predict.clients == hashed({f"192.0.2.{number}": number for number in (8, 7, 6, 5, 4)})
    assert metrics.clients == hashed({"192.0.2.1": 1})
    assert unavailable.clients is None


async def test_flood_from_many_addresses__is_counted_in_bounded_memory(redis: Redis) -> None:
    counters = RejectionCounters(redis, HASHER, lambda: 1.0)
    addresses = [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(100_000)]
    tracemalloc.start()
    try:
        for address in addresses:
            counters.count(429, "/predict", "predict", addresses[7])
            counters.count(429, "/analyze/performance", "analyze", address)
        grown_bytes = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert grown_bytes < 500 * MAX_TRACKED
    await counters.close()
    predict, analyze = await written(redis)
    assert (predict.n, predict.clients) == (100_000, hashed({addresses[7]: 100_000}))
    assert analyze.n == 100_000
    assert len(analyze.clients or ()) == 5


async def test_limited_clients__are_not_named_without_a_hash_key(redis: Redis) -> None:
    counters = RejectionCounters(redis, ClientHasher(""), lambda: 1.0)
    counters.count(429, "/predict", "predict", "192.0.2.1")
    await counters.close()
    [event] = await written(redis)
    assert (event.n, event.clients) == (1, None)

"""The analyst's scripts, the stream and everything else on a real cluster of three masters."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from system import System
from topologies.journey import TOKEN, walk
from topologies.redis_cluster import MASTERS, SLOTS, RedisCluster

from analyst.cache.redis_store import Listener, RedisFlightStore, listen
from analyst.cache.single_flight import Lifetime
from analyst.llm.quota import Quota
from common.contracts.events import DEAD_LETTERS, STREAM, CounterEvent
from common.journal.journal import Journal
from common.journal.publisher import Publisher
from common.runtime.settings import RedisSettings
from common.stores.redis import REDIS_ERRORS, create_client, run_id
from metrics.ingest.parse import DeadLetter
from metrics.ingest.stream import StreamAdmin, StreamReader

FLIGHTS = [f"{window}:en" for window in ("5m", "15m", "1h", "6h", "24h", "7d", "30d")]


@pytest.fixture
async def redis(redis_cluster: RedisCluster) -> AsyncIterator[Redis]:
    """Connect as a service does, to an empty cluster that has recovered from earlier tests."""
    await asyncio.to_thread(redis_cluster.wait_complete)
    client = create_client(RedisSettings.model_validate({k.lower(): v for k, v in redis_cluster.settings.items()}))
    for master in redis_cluster.masters:
        assert master.execute("FLUSHALL") == "+OK"
    yield client
    await client.aclose()


async def slot(redis: Redis, key: str) -> int:
    answer = await redis.execute_command("CLUSTER KEYSLOT", key)  # type: ignore[no-untyped-call]  # redis-py
    return int(answer)


async def test_flights__take_leases_and_keep_results_on_every_master(redis: Redis) -> None:
    store = RedisFlightStore(redis)
    masters = {await slot(redis, f"{{{key}}}") * MASTERS // SLOTS for key in FLIGHTS}
    assert masters == set(range(MASTERS))
    for key in FLIGHTS:
        assert (await store.enter(key, "t1", 5.0)).state == "COMPUTE"
        assert (await store.enter(key, "t2", 5.0)).state == "WAIT"
        assert await store.renew(key, "t1", 5.0)
        assert await store.commit(key, "t1", "report", Lifetime(60, 120, 180))
        assert (await store.enter(key, "t2", 5.0)).payload == "report"
        assert await store.fail(key, "t1", "late", 5.0) is False
        await store.release(key, "t1")
    assert await store.invalidate_all() == len(FLIGHTS)
    assert (await store.enter(FLIGHTS[0], "t3", 5.0)).state == "COMPUTE"


async def test_end_of_a_flight__reaches_every_subscriber(redis: Redis) -> None:
    flights = [f"{key}:end" for key in FLIGHTS]  # messages of another test may still arrive
    ended: asyncio.Queue[str] = asyncio.Queue()
    subscribed = asyncio.Event()
    listener = Listener(lambda key, _ended: ended.put_nowait(key), lambda _key: None, subscribed.set)
    task = asyncio.create_task(listen(redis, listener, lambda low, _high: low))
    store = RedisFlightStore(redis)
    async with asyncio.timeout(20):
        await subscribed.wait()
        for key in flights:
            await store.enter(key, "t", 5.0)
            assert await store.commit(key, "t", "report", Lifetime(60, 120, 180))
        while flights:
            if (key := await ended.get()) in flights:  # in any order
                flights.remove(key)
    task.cancel()
    await asyncio.wait([task])


async def test_quota__is_exact(redis: Redis) -> None:
    quota = Quota(redis, 10)
    slots = await asyncio.gather(*(quota.take(f"m{number}") for number in range(30)))
    assert sum(slot.granted for slot in slots) == 10
    await quota.refund(next(f"m{number}" for number, slot in enumerate(slots) if slot.granted))
    assert (await quota.look()).remaining == 1
    await quota.block(60)
    assert (await quota.take("late")).reason == "blocked"


async def test_stream__is_published_read_settled_and_trimmed(redis: Redis, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", 1 << 20, keep_s=600)
    journal.open()
    publisher = Publisher(journal, redis, CollectorRegistry())
    reader = StreamReader(redis, "c", batch=100, claim_idle_s=0.0, dead_letters_max=10, now=lambda: 0.0)
    await reader.create_group()
    journal.append([event().model_dump_json().encode() for _ in range(250)])
    await publisher.publish_all()
    maintenance, read = StreamAdmin(redis), []
    assert (await maintenance.backlog()).entries == 250
    while entries := await reader.next():
        read += entries
        await reader.settle(entries, [DeadLetter(entries[0], "malformed")])
    assert len({entry.id for entry in read}) == 250
    assert await redis.xlen(DEAD_LETTERS) == 3
    await maintenance.tidy()
    assert (await maintenance.backlog()).entries == 0
    await publisher.publish_all()
    assert await redis.xlen(STREAM) < 250  # trimmed, and not published again
    journal.close()


async def test_run_id__is_that_of_the_master_of_the_stream(redis: Redis, redis_cluster: RedisCluster) -> None:
    owner = redis_cluster.masters[await slot(redis, STREAM) * MASTERS // SLOTS]
    seen = {await run_id(redis, STREAM) for _ in range(10)}
    owner.kill()
    owner.start()
    assert len(seen) == 1
    async with asyncio.timeout(30):
        while await run_id_after_recovery(redis) in seen:
            await asyncio.sleep(0.1)


async def run_id_after_recovery(redis: Redis) -> str:
    """Return the run id once the cluster has accepted the restarted master."""
    while True:
        try:
            return await run_id(redis, STREAM)
        except REDIS_ERRORS:
            await asyncio.sleep(0.1)


async def test_whole_system__works(
    redis: Redis, redis_cluster: RedisCluster, start_system: Callable[..., System]
) -> None:
    await walk(start_system(**redis_cluster.settings, **TOKEN))


def event() -> CounterEvent:
    fields: dict[str, Any] = {"at_us": 1_790_000_000_000_000, "route": "/predict", "outcome": "limited", "n": 1}
    return CounterEvent(id=str(uuid.uuid4()), **fields)

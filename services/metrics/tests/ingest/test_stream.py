"""The consumer group on a real server: no entry is lost, claimed too early or trimmed too soon."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from common.contracts.events import DEAD_LETTERS, EVENT_FIELD, STREAM
from common.runtime.settings import RedisSettings
from common.stores.redis import create_client
from metrics.errors import StreamUnavailable
from metrics.ingest.parse import DeadLetter, Entry
from metrics.ingest.stream import BATCH_BYTES, GROUP, PORTION, StreamAdmin, StreamReader


@pytest.fixture
def maintenance(redis: Redis) -> StreamAdmin:
    return StreamAdmin(redis)


async def ids(redis: Redis) -> list[str]:
    entries: Any = await redis.xrange(STREAM)
    return [id for id, _ in entries]


async def read(reader: StreamReader) -> list[Entry]:
    """Return the next batch. The first read may only create the group."""
    async with asyncio.timeout(30):
        while not (entries := await reader.next()):
            pass
    return entries


async def test_events_written_before_the_group_existed__are_read(
    reader: Callable[..., Any], send: Callable[..., Any]
) -> None:
    sent = await send(b"one", b"two")
    assert await read(reader()) == [Entry(sent[0], b"one"), Entry(sent[1], b"two")]


async def test_entry_without_an_event_or_not_utf8__is_read_like_any_other(
    redis: Redis, reader: Callable[..., Any], send: Callable[..., Any]
) -> None:
    [first] = await send(b"\xff\x00")
    second = str(await redis.xadd(STREAM, {"other": "field"}))
    assert await read(reader()) == [Entry(first, b"\xff\x00"), Entry(second, None)]


async def test_quiet_stream__gives_an_empty_batch(reader: Callable[..., Any]) -> None:
    consumer = reader()
    await consumer.create_group()
    assert await consumer.next() == []


async def test_two_consumers__share_the_entries(reader: Callable[..., Any], send: Callable[..., Any]) -> None:
    await send(*(b"%d" % n for n in range(10)))
    one, two = reader("one", batch=4, claim_idle_s=60), reader("two", batch=6, claim_idle_s=60)
    payloads = [entry.payload for entry in await read(one) + await read(two)]
    assert payloads == [b"%d" % n for n in range(10)]


async def test_what_a_dead_consumer_left__is_handed_to_another(
    reader: Callable[..., Any], send: Callable[..., Any]
) -> None:
    await send(b"x")
    left = await read(reader("dead"))
    assert await read(reader("alive")) == left


async def test_what_a_living_consumer_holds__is_not_handed_on(
    reader: Callable[..., Any], send: Callable[..., Any]
) -> None:
    await send(b"x")
    held = await read(reader("slow"))
    await send(b"y")
    assert [entry.payload for entry in await read(reader("other", claim_idle_s=60))] == [b"y"]
    assert held[0].payload == b"x"


async def test_more_left_behind_than_a_batch__is_claimed_in_turns(
    reader: Callable[..., Any], send: Callable[..., Any]
) -> None:
    sent = await send(*(b"%d" % n for n in range(25)))
    await read(reader("dead"))
    heir = reader("heir", batch=10)
    claimed = []
    for _ in range(3):
        entries = await read(heir)
        await heir.settle(entries)
        claimed += [entry.id for entry in entries]
    assert sorted(claimed) == sorted(sent)


async def test_batch__is_read_in_portions_up_to_its_size(reader: Callable[..., Any], send: Callable[..., Any]) -> None:
    sent = await send(*(b"%d" % n for n in range(2 * PORTION + 20)))
    first, heir = reader("first", batch=2 * PORTION + 10), reader("heir", batch=PORTION + 10)
    batches = [await read(first)]
    assert first.is_behind
    batches += [await read(heir) for _ in range(2)]  # entries of the first consumer, then new ones
    assert [len(batch) for batch in batches] == [2 * PORTION + 10, PORTION + 10, PORTION]
    assert [entry.id for entry in batches[0]] == sent[: 2 * PORTION + 10]
    assert [entry.id for batch in batches[1:] for entry in batch] == sent[: 2 * PORTION + 10]
    assert not heir.is_behind


async def test_batch_of_long_entries__is_smaller(reader: Callable[..., Any], send: Callable[..., Any]) -> None:
    n = 3 * PORTION
    long = bytes(BATCH_BYTES // (2 * PORTION) + 1)
    for _ in range(n // 100):
        await send(*[long] * 100)
    first, heir = reader("first", batch=n), reader("heir", batch=n)
    for consumer in (first, heir):  # new entries and abandoned ones
        assert len(await read(consumer)) == 2 * PORTION
        assert consumer.is_behind


async def test_settled_entries__are_neither_pending_nor_read_again(
    redis: Redis, reader: Callable[..., Any], send: Callable[..., Any]
) -> None:
    await send(b"x")
    consumer = reader()
    await consumer.settle(await read(consumer))
    assert await consumer.next() == []
    assert (await redis.xpending(STREAM, GROUP))["pending"] == 0


async def test_dead_letter_that_two_consumers_have_in_hand__is_filed_once(
    reader: Callable[..., StreamReader], send: Callable[..., Any], dead: Callable[..., Any]
) -> None:
    await send("not an event", "nor this")
    slow, heir = reader("slow"), reader("heir")
    entries = await read(slow)
    assert await read(heir) == entries  # claimed after the idle time
    letters = [DeadLetter(entry, "malformed") for entry in entries]
    assert await heir.settle(entries[:1], letters[:1]) == letters[:1]
    assert await slow.settle(entries, letters) == letters[1:]
    assert await dead() == ["malformed"] * 2


async def test_dead_letter__keeps_payload_reason_and_id(
    redis: Redis, reader: Callable[..., Any], send: Callable[..., Any]
) -> None:
    [sent] = await send(b"x")
    consumer = reader()
    entries = await read(consumer)
    await consumer.settle(entries, [DeadLetter(entries[0], "malformed")])
    letters: Any = await redis.xrange(DEAD_LETTERS)
    [(_, fields)] = letters
    assert fields == {"event": "x", "reason": "malformed", "id": sent}


@pytest.mark.parametrize("lost", ["group", "stream"])
async def test_lost_group__is_made_again_and_nothing_is_missed(
    redis: Redis, reader: Callable[..., Any], send: Callable[..., Any], lost: str
) -> None:
    await send(b"before")
    consumer = reader()
    await consumer.settle(await read(consumer))
    await (redis.xgroup_destroy(STREAM, GROUP) if lost == "group" else redis.delete(STREAM))
    await send(b"after")
    assert (await read(consumer))[-1].payload == b"after"


async def test_trim__keeps_everything_from_the_oldest_unsettled_entry_on(
    redis: Redis, reader: Callable[..., Any], maintenance: StreamAdmin, send: Callable[..., Any]
) -> None:
    consumer = reader(batch=100, claim_idle_s=60)
    sent = await send(*(b"%d" % n for n in range(1000)))
    entries = await read(consumer)
    while len(entries) < 900:
        entries += await read(consumer)
    await consumer.settle([entry for n, entry in enumerate(entries) if n != 450])
    await maintenance.tidy()
    kept = await ids(redis)
    assert kept[-550:] == sent[450:]
    assert len(kept) < 1000


async def test_trim_of_a_settled_stream__keeps_what_was_not_read_yet(
    redis: Redis, reader: Callable[..., Any], maintenance: StreamAdmin, send: Callable[..., Any]
) -> None:
    consumer = reader(batch=500)
    sent = await send(*(b"%d" % n for n in range(800)))
    await consumer.settle(await read(consumer))
    await maintenance.tidy()
    kept = await ids(redis)
    assert kept[-300:] == sent[500:]
    assert len(kept) < 500


async def test_trim_without_a_group__removes_nothing(
    redis: Redis, maintenance: StreamAdmin, send: Callable[..., Any]
) -> None:
    await maintenance.tidy()
    sent = await send(*(b"%d" % n for n in range(300)))
    await maintenance.tidy()
    assert await ids(redis) == sent


async def test_backlog__counts_unread_and_unsettled_entries(
    reader: Callable[..., Any], maintenance: StreamAdmin, send: Callable[..., Any]
) -> None:
    assert (await maintenance.backlog()).entries == 0
    await send(b"1", b"2", b"3")
    assert (await maintenance.backlog()).entries == 3
    consumer = reader(batch=2)
    entries = await read(consumer)
    assert (await maintenance.backlog()).entries == 3
    await consumer.settle(entries)
    assert (await maintenance.backlog()).entries == 1


async def test_backlog_age__is_that_of_the_oldest_unsettled_entry_on_the_servers_clock(
    redis: Redis, reader: Callable[..., Any], maintenance: StreamAdmin, send: Callable[..., Any]
) -> None:
    seconds, micros = await redis.time()
    then_ms = (seconds - 90) * 1000 + micros // 1000
    await redis.xadd(STREAM, {"event": "old"}, id=f"{then_ms}-0")
    await send(b"new")
    assert 90 <= (await maintenance.backlog()).age_s < 150  # a busy machine may be late by seconds
    consumer = reader(batch=1)
    entries = await read(consumer)
    assert 90 <= (await maintenance.backlog()).age_s < 150
    await consumer.settle(entries)
    assert (await maintenance.backlog()).age_s < 60
    await consumer.settle(await read(consumer))
    assert (await maintenance.backlog()).age_s == 0


async def test_backlog_age__is_that_of_the_event_where_it_came_late(
    redis: Redis, prediction: Callable[..., Any], maintenance: StreamAdmin, send: Callable[..., Any]
) -> None:
    now_us = int((await redis.time())[0]) * 1_000_000
    fresh = [prediction(at_us=now_us, text=r'"at_us":1') for _ in range(5)]
    await send(*fresh, b"not JSON", prediction(at_us=now_us + 3_600_000_000), prediction(at_us=now_us - 90_000_000))
    assert 90 <= (await maintenance.backlog()).age_s < 150


async def test_stale_consumer__is_forgotten_only_with_nothing_pending(
    redis: Redis, reader: Callable[..., Any], send: Callable[..., Any]
) -> None:
    await send(b"x")
    await read(reader("busy"))
    await redis.xgroup_createconsumer(STREAM, GROUP, "gone")
    await StreamAdmin(redis, stale_consumer_s=-1).tidy()
    assert [one["name"] for one in await redis.xinfo_consumers(STREAM, GROUP)] == ["busy"]


async def test_unreachable_redis__is_named(own_valkey: Callable[..., Any]) -> None:
    server = own_valkey()
    settings = RedisSettings(redis_host=server.host, redis_port=server.port, redis_password=server.password)
    async with create_client(settings) as redis:
        reader = StreamReader(redis, "c", batch=1, claim_idle_s=1, dead_letters_max=1, now=lambda: 0.0)
        server.kill()
        with pytest.raises(StreamUnavailable):
            await reader.next()
        with pytest.raises(StreamUnavailable):
            await StreamAdmin(redis).backlog()


@pytest.fixture
async def filled(own_valkey: Callable[..., Any]) -> AsyncIterator[Redis]:
    """A server whose memory is full."""
    server = own_valkey()
    settings = RedisSettings(redis_host=server.host, redis_port=server.port, redis_password=server.password)
    async with create_client(settings, timeout_s=30) as redis:
        for _ in range(20):
            pipeline = redis.pipeline(transaction=False)
            for _ in range(500):
                pipeline.xadd(STREAM, {EVENT_FIELD: "x" * 500})
            await pipeline.execute()
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", used - (1 << 20))  # client buffers shrink and free some memory
        with pytest.raises(OutOfMemoryError):
            await redis.xadd(STREAM, {EVENT_FIELD: "x"})
        yield redis


async def test_full_server_in_which_no_group_was_made__is_emptied_and_keeps_its_dead_letters(filled: Redis) -> None:
    consumer = StreamReader(filled, "c", batch=100, claim_idle_s=60, dead_letters_max=500, now=lambda: 0.0)
    entries = await read(consumer)
    await consumer.settle(entries, [DeadLetter(entry, "malformed") for entry in entries])
    assert await filled.xlen(DEAD_LETTERS) == len(entries) == 100
    for _ in range(98):
        await consumer.settle(await read(consumer))
    await StreamAdmin(filled).tidy()
    await filled.xadd(STREAM, {EVENT_FIELD: "x"})

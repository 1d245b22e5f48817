"""The publisher against a real server that is slow, full, killed, replaced or emptied."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ResponseError

from common.contracts.events import EVENT_FIELD, STREAM
from common.journal.journal import Journal
from common.journal.publisher import BACKOFF_MIN_S, CHECK_S, Publisher
from common.runtime.settings import RedisSettings
from common.runtime.tasks import cancel_and_wait
from common.stores.redis import REDIS_ERRORS, create_client
from launcher.valkey import Valkey


class Clock:
    def __init__(self) -> None:
        self.at_s = 1000.0

    def __call__(self) -> float:
        return self.at_s


class Rig:
    """A journal, a client and a publisher with the clock of the test."""

    def __init__(self, root: Path, redis: Redis) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.redis = redis
        self.journal = Journal(root, now=self.clock)
        self.journal.open()
        self.publisher = Publisher(self.journal, redis, self.registry, self.clock)

    def append(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            self.journal.append([f"{number}".encode()])
        self.publisher.notify()

    async def check_and_publish(self) -> None:
        self.clock.at_s += CHECK_S
        await self.publisher.publish_all()

    async def stream(self) -> list[int]:
        entries: Any = await self.redis.xrange(STREAM)
        return [int(fields[EVENT_FIELD]) for _, fields in entries]

    async def forget_connections(self) -> None:
        """The client does the same once the loop reports that they are closed."""
        await self.redis.connection_pool.disconnect()

    def rewinds(self) -> float | None:
        return self.registry.get_sample_value("sluice_events_rewinds_total")


def client(server: Valkey) -> Redis:
    """Long timeouts, because events are published twice after one."""
    return create_client(
        RedisSettings.model_validate(
            {
                "redis_host": server.host,
                "redis_port": server.port,
                "redis_password": server.password,
                "redis_timeout_s": 60,
            }
        )
    )


@asynccontextmanager
async def rigged(root: Path, server: Valkey) -> AsyncIterator[Rig]:
    redis = client(server)
    rig = Rig(root, redis)
    try:
        yield rig
    finally:
        rig.journal.close()
        await redis.aclose()


@pytest.fixture
async def rig(tmp_path: Path, redis_url: str, valkey: Valkey) -> AsyncIterator[Rig]:
    async with rigged(tmp_path, valkey) as made:
        yield made


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(publisher: Publisher) -> AsyncIterator[None]:
    task = asyncio.create_task(publisher.run())
    try:
        yield
    finally:
        await cancel_and_wait(task)


async def test_events__reach_the_stream_in_order_and_once(rig: Rig) -> None:
    rig.append(1, 500)
    await rig.check_and_publish()
    rig.append(501, 700)
    await rig.check_and_publish()
    assert await rig.stream() == list(range(1, 701))
    assert rig.journal.pending_bytes == 0
    assert rig.registry.get_sample_value("sluice_events_published_total") == 700


async def test_checks__run_at_most_once_a_second(rig: Rig) -> None:
    await rig.redis.config_resetstat()
    for number in range(50):
        rig.append(number, number)
        await rig.publisher.publish_all()
    calls = await rig.redis.info("commandstats")
    assert calls["cmdstat_info"]["calls"] == 1
    assert calls["cmdstat_xinfo|stream"]["calls"] == 1


async def test_check__adopts_files_of_dead_processes_and_deletes_old_events(rig: Rig, tmp_path: Path) -> None:
    await rig.check_and_publish()
    dead = Journal(tmp_path)
    dead.open()
    dead.append([b"1"])
    dead.close()
    await rig.check_and_publish()
    assert await rig.stream() == [1]
    assert rig.registry.get_sample_value("sluice_events_journal_bytes") == rig.journal.size_bytes > 0
    await rig.check_and_publish()
    rig.clock.at_s += rig.journal.keep_s
    await rig.check_and_publish()
    assert rig.journal.size_bytes == 0


async def test_trimmed_stream__is_not_a_loss(rig: Rig) -> None:
    rig.append(1, 10)
    await rig.check_and_publish()
    await rig.redis.xtrim(STREAM, minid="99999999999999-0", approximate=False)
    await rig.check_and_publish()
    rig.append(11, 12)
    await rig.check_and_publish()
    assert await rig.stream() == [11, 12]
    assert rig.rewinds() == 0


async def test_deleted_stream__is_filled_again(rig: Rig) -> None:
    rig.append(1, 10)
    await rig.check_and_publish()
    await rig.redis.delete(STREAM)
    await rig.check_and_publish()
    assert await rig.stream() == list(range(1, 11))


async def test_stream_deleted_and_recreated_by_another_client__is_filled_again(rig: Rig) -> None:
    """Its last id is newer than ours, so only its count of entries reveals the loss."""
    rig.append(1, 10)
    await rig.check_and_publish()
    await rig.check_and_publish()
    await rig.redis.delete(STREAM)
    await rig.redis.xadd(STREAM, {EVENT_FIELD: "0"})
    await rig.check_and_publish()
    assert await rig.stream() == list(range(11))


async def test_stream_with_decreased_ids__is_filled_again_at_once(rig: Rig) -> None:
    rig.append(1, 10)
    await rig.redis.xadd(STREAM, {EVENT_FIELD: "0"}, id="99999999999999-1")
    await rig.check_and_publish()
    await rig.redis.delete(STREAM)
    rig.append(11, 12)
    await rig.publisher.publish_all()
    assert set(await rig.stream()) == set(range(1, 13))
    assert rig.rewinds() == 1


async def test_server_that_restarts_empty__gets_every_kept_event_again(
    tmp_path: Path, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    async with rigged(tmp_path / "journal", server) as rig:
        rig.append(1, 300)
        await rig.check_and_publish()
        server.kill()
        rig.append(301, 310)
        with pytest.raises(REDIS_ERRORS):
            await rig.check_and_publish()
        server.start()
        await rig.check_and_publish()
        assert await rig.stream() == list(range(1, 311))
        assert rig.rewinds() == 1


async def test_server_that_restarts_with_an_old_file__gets_every_event(
    tmp_path: Path, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey(appendonly="yes", appendfsync="always")
    async with rigged(tmp_path / "journal", server) as rig:
        rig.append(1, 100)
        await rig.check_and_publish()
        await rig.redis.config_set("appendonly", "no")
        rig.append(101, 200)
        await rig.check_and_publish()
        server.kill()
        server.start()
        await rig.forget_connections()
        assert await rig.redis.xlen(STREAM) == 100
        await rig.check_and_publish()
        assert set(await rig.stream()) == set(range(1, 201))


async def test_restart_between_two_checks__is_noticed_at_the_next(
    tmp_path: Path, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    async with rigged(tmp_path / "journal", server) as rig:
        rig.append(1, 100)
        await rig.check_and_publish()
        server.kill()
        server.start()
        await rig.forget_connections()
        rig.append(101, 110)
        await rig.publisher.publish_all()
        await rig.check_and_publish()
        assert set(await rig.stream()) == set(range(1, 111))


async def test_drain__checks_for_lost_events_first(tmp_path: Path, own_valkey: Callable[..., Valkey]) -> None:
    server = own_valkey()
    async with rigged(tmp_path / "journal", server) as rig:
        rig.append(1, 10)
        await rig.check_and_publish()
        server.kill()
        server.start()
        rig.append(11, 12)
        await rig.publisher.drain(60)
        assert await rig.stream() == list(range(1, 13))


async def test_full_server__refused_events_are_not_marked(tmp_path: Path, own_valkey: Callable[..., Valkey]) -> None:
    server = own_valkey(maxmemory="3mb", maxmemory_policy="noeviction")
    async with rigged(tmp_path / "journal", server) as rig:
        padding = " " * 2000
        for number in range(1, 2001):
            rig.journal.append([f"{number}{padding}".encode()])
        with pytest.raises(OutOfMemoryError):
            while True:
                await rig.check_and_publish()
        published = await rig.stream()
        marked = int(rig.registry.get_sample_value("sluice_events_published_total") or 0)
        assert published[:marked] == list(range(1, marked + 1))  # the server may accept events behind a refused one
        assert 0 < marked < 2000
        await rig.redis.config_set("maxmemory", "0")
        await rig.check_and_publish()
        assert set(await rig.stream()) == set(range(1, 2001))


async def test_partly_refused_round_trip__publishes_the_rest_later_and_once(rig: Rig) -> None:
    await rig.redis.xadd(STREAM, {EVENT_FIELD: "0"}, id="18446744073709551615-18446744073709551613")
    rig.append(1, 5)
    with pytest.raises(ResponseError, match="exhausted"):
        await rig.check_and_publish()
    assert await rig.stream() == [0, 1, 2]
    assert rig.registry.get_sample_value("sluice_events_published_total") == 2
    chunk = rig.journal.next_chunk()
    assert chunk is not None
    assert chunk.payloads == [b"3", b"4", b"5"]


async def test_running_publisher__survives_a_restart_of_the_server(
    tmp_path: Path, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    async with rigged(tmp_path / "journal", server) as rig, running(rig.publisher):
        rig.append(1, 50)
        await until(lambda: rig.journal.pending_bytes == 0)
        server.kill()
        rig.append(51, 60)
        await until(lambda: not rig.publisher.is_connected)
        server.start()
        await until(lambda: rig.journal.pending_bytes == 0)
        assert await rig.stream() == list(range(1, 61))
        assert rig.publisher.is_connected


async def test_idle_publisher__notices_every_loss(rig: Rig) -> None:
    rig.append(1, 5)
    async with running(rig.publisher), asyncio.timeout(60):
        for times in (1, 2):
            await until(lambda: rig.journal.pending_bytes == 0)
            await rig.redis.delete(STREAM)
            rig.clock.at_s += CHECK_S
            while rig.rewinds() != times:
                await asyncio.sleep(0.01)
        await until(lambda: rig.journal.pending_bytes == 0)
    assert await rig.stream() == [1, 2, 3, 4, 5]


async def test_failing_publisher__doubles_its_back_off(rig: Rig) -> None:
    tries_s: list[float] = []

    def count_try() -> float:
        tries_s.append(asyncio.get_running_loop().time())
        return rig.clock()

    await rig.redis.set(STREAM, "a string")
    async with running(Publisher(rig.journal, rig.redis, CollectorRegistry(), count_try)):
        await until(lambda: len(tries_s) >= 4)
    waited_s = [later - earlier for earlier, later in pairwise(tries_s)]
    assert all(waited >= 0.99 * BACKOFF_MIN_S * 2**failures for failures, waited in enumerate(waited_s[:3]))


async def test_lost_node__costs_only_its_pending_events(tmp_path: Path, redis_url: str, valkey: Valkey) -> None:
    async with rigged(tmp_path / "node", valkey) as lost:
        lost.append(1, 50)
        async with running(lost.publisher):
            await until(lambda: lost.registry.get_sample_value("sluice_events_journal_pending_bytes") == 0)
        lost.append(51, 60)  # the node ends here
        assert lost.registry.get_sample_value("sluice_events_journal_pending_bytes")
    shutil.rmtree(tmp_path / "node")
    async with rigged(tmp_path / "other", valkey) as other:
        other.append(61, 65)
        await other.check_and_publish()
        assert await other.stream() == [*range(1, 51), *range(61, 66)]
        assert other.rewinds() == 0


async def test_drain_without_a_server__leaves_events_to_the_next_process(
    tmp_path: Path, own_valkey: Callable[..., Valkey]
) -> None:
    server = own_valkey()
    async with rigged(tmp_path / "journal", server) as rig:
        rig.append(1, 3)
        server.kill()
        await rig.publisher.drain(5)
    server.start()
    async with rigged(tmp_path / "journal", server) as successor:
        await successor.check_and_publish()
        assert await successor.stream() == [1, 2, 3]


async def test_drain_against_a_hung_server__is_bounded(tmp_path: Path, own_valkey: Callable[..., Valkey]) -> None:
    server = own_valkey()
    async with rigged(tmp_path / "journal", server) as rig:
        rig.append(1, 3)
        await rig.check_and_publish()
        rig.append(4, 5)
        await rig.redis.client_pause(60_000)
        async with asyncio.timeout(20):
            await rig.publisher.drain(0.1)
        assert rig.journal.pending_bytes > 0

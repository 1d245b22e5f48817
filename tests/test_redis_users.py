"""`deploy/redis/users.acl`: each service works under a user of its own, which opens no keys of another's."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from analyst.flight import Lifetime
from analyst.flight_store import Listener, RedisFlightStore, listen
from analyst.quota import Quota
from common.contracts import STREAM, PredictionEvent
from common.journal import Journal
from common.redis import create_client
from common.settings import RedisSettings
from common.shipper import Shipper
from common.tasks import end
from launcher.valkey import Valkey
from metrics.events import DeadLetter
from metrics.stream import StreamReader, StreamUpkeep

USERS = (Path(__file__).parents[1] / "deploy/redis/users.acl").read_text()
PASSWORD = "secret"


class Server:
    """A Redis whose users are those of the file."""

    def __init__(self, valkey: Valkey) -> None:
        self._valkey = valkey

    @asynccontextmanager
    async def client(self, user: str = "") -> AsyncIterator[Redis]:
        """As a service makes it; without a name as the administrator."""
        settings = {
            "redis_host": self._valkey.host,
            "redis_port": self._valkey.port,
            "redis_username": f"sluice_{user}" if user else "",
            "redis_password": PASSWORD if user else self._valkey.password,
            "redis_timeout_s": 20.0,
        }
        redis = create_client(RedisSettings.model_validate(settings))
        try:
            yield redis
        finally:
            await redis.aclose()


@pytest.fixture
async def server(own_valkey: Callable[..., Valkey]) -> Server:
    made = Server(await asyncio.to_thread(own_valkey))
    async with made.client() as administrator:
        for line in USERS.splitlines():
            _, name, *rules = line.replace("PASSWORD", PASSWORD).split()
            assert await administrator.execute_command("ACL", "SETUSER", name, *rules)  # type: ignore[no-untyped-call]
    return made


def event() -> PredictionEvent:
    return PredictionEvent(
        id=str(uuid.uuid4()), at_us=1_790_000_000_000_000, route="/predict", outcome="ok", request_id="r", model="m",
        revision="1", label="POSITIVE", score=0.75, margin=0.5, latency_us=10_000, characters=40,
    )  # fmt: skip  # a field a line would be a screenful


async def ship(redis: Redis, folder: Path) -> None:
    """What edge and inference do, on a stream that is not there yet and on one that is."""
    journal = Journal(folder)
    journal.open()
    shipper = Shipper(journal, redis, CollectorRegistry())
    await shipper.ship_all()
    for _ in range(2):
        journal.append([event().model_dump_json(exclude_none=True).encode()])
        await shipper.drain(60)
    assert journal.pending_bytes == 0
    journal.close()
    await redis.ping()


async def ingest(redis: Redis) -> None:
    """What metrics does, but for the database."""
    upkeep = StreamUpkeep(redis)
    for consumer in ("gone", "here"):
        reader = StreamReader(redis, consumer, batch=1, claim_idle_s=0.001, dead_letters_max=10, now=lambda: 0.0)
        await reader.create_group()
        entries = await reader.next()
        assert len(entries) == 1
    await reader.settle(entries, [DeadLetter(entries[0], "malformed")])
    assert (await upkeep.backlog()).entries
    await upkeep.tidy()
    await redis.ping()


async def report(redis: Redis) -> None:
    """What the analyst does for its reports and its quota."""
    store, ended = RedisFlightStore(redis), asyncio.Event()
    subscribed = asyncio.Event()
    listener = Listener(lambda _key, _ended: ended.set(), lambda _key: None, subscribed.set)
    listening = asyncio.create_task(listen(redis, listener, lambda low, _high: low))
    try:
        async with asyncio.timeout(60):
            await subscribed.wait()
            assert (await store.enter("key", "token", 30)).state == "LEAD"
            assert await store.renew("key", "token", 30)
            assert await store.commit("key", "token", "report", Lifetime(60, 60, 60))
            await ended.wait()
            assert (await store.enter("key", "other", 30)).payload == "report"
            await store.enter("failing", "token", 30)
            assert await store.fail("failing", "token", "broken", 5)
            await store.enter("left", "token", 30)
            await store.release("left", "token")
            assert await store.invalidate_all() == 1
    finally:
        await end(listening)
    quota = Quota(redis, 3)
    assert (await quota.take("one")).granted
    assert (await quota.look()).remaining == 2
    await quota.refund("one")
    await quota.block(60)
    assert not (await quota.take("two")).granted
    await redis.ping()


async def test_each_service__works_under_a_user_of_its_own(server: Server, tmp_path: Path) -> None:
    for name in ("edge", "inference"):
        async with server.client(name) as redis:
            await ship(redis, tmp_path / name)
    async with server.client("metrics") as redis:
        await ingest(redis)
    async with server.client("analyst") as redis:
        await report(redis)


PREDICTIONS = ("XRANGE {predictions} - +", "XREAD STREAMS {predictions} 0", "DEL {predictions}", "XLEN {predictions}")
REPORTS = ("GET analyst:report:x", "HSET analyst:report:x a b", "DEL analyst:report:x", "PUBLISH analyst:flights x")
EVERYTHING = ("FLUSHALL", "KEYS *", "CONFIG GET *", "ACL LIST", "CLIENT LIST", "SCRIPT FLUSH", "MONITOR", "SHUTDOWN")


@pytest.mark.parametrize(
    ("user", "attempts"),
    [
        ("edge", (*PREDICTIONS, *REPORTS, *EVERYTHING)),
        ("inference", (*PREDICTIONS, *REPORTS, *EVERYTHING)),
        ("metrics", ("DEL {predictions}", *REPORTS, *EVERYTHING)),
        ("analyst", (*PREDICTIONS, "XADD {predictions} * event x", "SET other x", "PUBLISH other x", *EVERYTHING)),
    ],
)
async def test_user_of_a_service__opens_nothing_of_another(
    user: str, attempts: tuple[str, ...], server: Server
) -> None:
    assert STREAM == "{predictions}"
    async with server.client(user) as redis:
        for attempt in attempts:
            with pytest.raises(NoPermissionError):
                await redis.execute_command(*attempt.split())  # type: ignore[no-untyped-call]

"""`deploy/redis/users.acl`: each service works under its user, which cannot reach the keys of others."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from made_up import prediction
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from topologies.redis_cluster import MASTERS, SLOTS, RedisCluster

from analyst.cache.redis_store import Listener, RedisFlightStore, listen
from analyst.cache.single_flight import Lifetime
from analyst.llm.quota import Quota
from common.contracts.events import STREAM
from common.journal.journal import Journal
from common.journal.publisher import Publisher
from common.runtime.settings import RedisSettings
from common.runtime.tasks import cancel_and_wait
from common.stores.redis import check_writable, create_client
from edge_limiter.proxy.rejections import RejectionCounters
from launcher.valkey import SETTINGS_FOR_TESTS, Valkey
from metrics.ingest.parse import DeadLetter
from metrics.ingest.stream import StreamAdmin, StreamReader

USERS = (Path(__file__).parents[1] / "deploy/redis/users.acl").read_text()
PASSWORD = "secret"


class Server:
    """One Redis server or the masters of a cluster, with the users of the file."""

    def __init__(self, masters: Sequence[Valkey]) -> None:
        self.masters = masters
        for line in USERS.splitlines():
            _, name, *rules = line.replace("PASSWORD", PASSWORD).split()
            assert {master.execute("ACL", "SETUSER", name, *rules) for master in masters} == {"+OK"}

    @asynccontextmanager
    async def client(self, user: str) -> AsyncIterator[Redis]:
        """Connect as a service does."""
        settings = {
            "redis_host": self.masters[0].host,
            "redis_port": self.masters[0].port,
            "redis_username": f"sluice_{user}",
            "redis_password": PASSWORD,
            "redis_cluster": len(self.masters) > 1,
            "redis_timeout_s": 20.0,
        }
        redis = create_client(RedisSettings.model_validate(settings))
        try:
            yield redis
        finally:
            await redis.aclose()

    def move_away(self, key: str) -> None:
        """Start to migrate a slot: its master redirects requests for missing keys to the next one."""
        slot = int(self.masters[0].execute("CLUSTER", "KEYSLOT", key).removeprefix(":"))
        place = slot * MASTERS // SLOTS
        old, new = self.masters[place], self.masters[(place + 1) % MASTERS]
        for master, state, other in ((new, "IMPORTING", old), (old, "MIGRATING", new)):
            node = (other.state / "nodes.conf").read_text()
            name = next(line.split()[0] for line in node.splitlines() if "myself" in line)
            assert master.execute("CLUSTER", "SETSLOT", str(slot), state, name) == "+OK"


@pytest.fixture
def alone(own_valkey: Callable[..., Valkey]) -> Server:
    return Server([own_valkey()])


@pytest.fixture
def cluster(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Server]:
    folder = tmp_path / "cluster"
    folder.mkdir()
    masters = RedisCluster(folder, free_port)
    try:
        masters.start()
        yield Server(masters.masters)
    finally:
        masters.kill()


@pytest.fixture(params=["alone", "cluster"])
def server(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)
    return server


async def ship(redis: Redis, folder: Path) -> None:
    """Publish as inference does, first to a stream that does not exist yet."""
    journal = Journal(folder)
    journal.open()
    publisher = Publisher(journal, redis, CollectorRegistry())
    await publisher.publish_all()
    for _ in range(2):
        journal.append([prediction(1_790_000_000).model_dump_json(exclude_none=True).encode()])
        await publisher.drain(60)
    assert journal.pending_bytes == 0
    journal.close()
    await check_writable(redis, STREAM)
    await redis.ping()


async def count_rejections(redis: Redis) -> None:
    """Write as the edge does, and check Redis as its health page does."""
    counters = RejectionCounters(redis, lambda address: address)
    counters.count(429, "/predict", "predict", "client")
    await counters.flush()
    await counters.close()
    await check_writable(redis, STREAM)
    await redis.ping()


async def ingest(redis: Redis) -> None:
    """Read and settle events as metrics does, without its database."""
    maintenance = StreamAdmin(redis)
    for consumer in ("gone", "here"):
        reader = StreamReader(redis, consumer, batch=1, claim_idle_s=0.001, dead_letters_max=10, now=lambda: 0.0)
        await reader.create_group()
        entries = await reader.next()
        assert len(entries) == 1
    await reader.settle(entries, [DeadLetter(entries[0], "malformed")])
    assert (await maintenance.backlog()).entries
    await maintenance.tidy()
    await maintenance.check_writable()
    await redis.ping()


async def report(redis: Redis) -> None:
    """Use reports and quota as the analyst does."""
    store, ended = RedisFlightStore(redis), asyncio.Event()
    subscribed = asyncio.Event()
    listener = Listener(lambda _key, _ended: ended.set(), lambda _key: None, subscribed.set)
    listening = asyncio.create_task(listen(redis, listener, lambda low, _high: low))
    try:
        async with asyncio.timeout(60):
            await subscribed.wait()
            assert (await store.enter("key", "token", 30)).state == "COMPUTE"
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
        await cancel_and_wait(listening)
    quota = Quota(redis, 3)
    assert (await quota.take("one")).granted
    assert (await quota.look()).remaining == 2
    await quota.refund("one")
    await quota.block(60)
    assert not (await quota.take("two")).granted
    await redis.ping()


async def test_each_service__works_under_its_user(server: Server, tmp_path: Path) -> None:
    async with server.client("edge") as redis:
        await count_rejections(redis)
    async with server.client("inference") as redis:
        await ship(redis, tmp_path / "inference")
    async with server.client("metrics") as redis:
        await ingest(redis)
    async with server.client("analyst") as redis:
        await report(redis)


async def test_client_without_a_password__is_refused(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """Without a line for `default`, Redis lets clients in without a password."""
    state, users = tmp_path / "valkey", tmp_path / "users.acl"
    state.mkdir(mode=0o700)
    (state / "password").write_text(PASSWORD)
    users.write_text(f"user default on >{PASSWORD} ~* &* +@all\n")
    server = Valkey(state, free_port(), settings=SETTINGS_FOR_TESTS | {"aclfile": str(users)})
    try:
        server.start()
        users.write_text(USERS.replace("PASSWORD", PASSWORD))
        assert server.execute("ACL", "LOAD") == "+OK"
        async with Redis(host=server.host, port=server.port) as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.xlen(STREAM)
    finally:
        server.kill()


PREDICTIONS = ("XRANGE {predictions} - +", "XREAD STREAMS {predictions} 0", "DEL {predictions}", "XLEN {predictions}")
REPORTS = ("GET analyst:report:x", "HSET analyst:report:x a b", "DEL analyst:report:x", "PUBLISH analyst:flights x")
CLUSTER = ("CLUSTER RESET", "CLUSTER SETSLOT 1 STABLE", "CLUSTER NODES", "READONLY")
EVERYTHING = (
    "FLUSHALL", "KEYS *", "CONFIG GET *", "ACL LIST", "CLIENT LIST", "SCRIPT FLUSH", "MONITOR", "SHUTDOWN", *CLUSTER
)  # fmt: skip  # one command per line would be too long


async def test_migrating_slot__is_reached_by_each_service(cluster: Server, tmp_path: Path) -> None:
    cluster.move_away(STREAM)
    async with cluster.client("edge") as redis:
        await count_rejections(redis)
    async with cluster.client("inference") as redis:
        await ship(redis, tmp_path)
    async with cluster.client("metrics") as redis:
        assert await redis.xlen(STREAM) == 3
    cluster.move_away("analyst:report")
    async with cluster.client("analyst") as redis:
        assert await redis.set("analyst:report", "x")


@pytest.mark.parametrize(
    ("user", "attempts"),
    [
        ("edge", (*PREDICTIONS, *REPORTS, *EVERYTHING)),
        ("inference", (*PREDICTIONS, *REPORTS, *EVERYTHING)),
        ("metrics", ("DEL {predictions}", *REPORTS, *EVERYTHING)),
        ("analyst", (*PREDICTIONS, "XADD {predictions} * event x", "SET other x", "PUBLISH other x", *EVERYTHING)),
    ],
)
async def test_user_of_a_service__cannot_reach_the_keys_of_others(
    user: str, attempts: tuple[str, ...], alone: Server
) -> None:
    assert STREAM == "{predictions}"
    async with alone.client(user) as redis:
        for attempt in attempts:
            with pytest.raises(NoPermissionError):
                await redis.execute_command(*attempt.split())  # type: ignore[no-untyped-call]

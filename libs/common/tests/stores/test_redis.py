"""The Redis client: lazy connections, bounded time and no retries."""

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, ReadOnlyError
from tls import before, join, listening, self_signed

from common.runtime.settings import RedisSettings
from common.runtime.tasks import cancel_and_wait
from common.stores.redis import REDIS_ERRORS, check_writable, create_client, run_id
from launcher.valkey import Valkey


def settings(port: int, **values: object) -> RedisSettings:
    """Settings with enough time for a busy machine."""
    patient = {"redis_host": "127.0.0.1", "redis_port": port, "redis_timeout_s": 60}
    return RedisSettings.model_validate(patient | values)


async def test_client__reads_and_writes_text(redis_url: str, valkey: Valkey) -> None:
    client = create_client(settings(valkey.port, redis_password=valkey.password, redis_db=3))
    await client.set("key", "wört")
    assert await client.get("key") == "wört"
    await client.aclose()
    async with create_client(settings(valkey.port, redis_password=valkey.password)) as of_another_database:
        assert await of_another_database.get("key") is None


async def test_absent_server__is_an_error_of_the_call_and_recovers(
    own_valkey: Callable[..., Valkey],
) -> None:
    server = own_valkey()
    server.kill()
    client = create_client(settings(server.port, redis_password=server.password))
    with pytest.raises(REDIS_ERRORS):
        await client.ping()
    server.start()
    assert await client.ping()
    await client.aclose()


@pytest.mark.parametrize(("given_s", "override_s", "costs_s"), [(0.2, None, 0.2), (60, 0.05, 0.05)])
async def test_hung_server__costs_one_timeout_and_no_hidden_retry(
    given_s: float, override_s: float | None, costs_s: float
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        client = create_client(settings(port, redis_timeout_s=given_s), timeout_s=override_s)
        started = time.monotonic()
        with pytest.raises(REDIS_ERRORS):
            await client.get("key")
        assert costs_s * 0.9 <= time.monotonic() - started < costs_s + 20  # a busy machine may be late by seconds
        silent.settimeout(0)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # each retry would open another connection
            silent.accept()
        await client.aclose()


async def test_cancelled_call__leaves_no_response_for_the_next_one(redis_url: str, valkey: Valkey) -> None:
    client = create_client(settings(valkey.port, redis_password=valkey.password))
    await client.set("key", "value")
    for _ in range(3):
        asking = asyncio.create_task(blocked(client))
        async with asyncio.timeout(60):
            while not await someone_blocks(valkey):
                await asyncio.sleep(0.01)
        await cancel_and_wait(asking)
        assert await client.get("key") == "value"
    await client.aclose()


async def blocked(client: Redis) -> None:
    await client.blpop(["nothing"], timeout=60)


async def someone_blocks(valkey: Valkey) -> bool:
    watching = create_client(settings(valkey.port, redis_password=valkey.password))
    try:
        clients = await watching.info("clients")
        return int(clients["blocked_clients"]) > 0
    finally:
        await watching.aclose()


@pytest.mark.parametrize("by_tls", [False, True])
async def test_demoted_master__is_left_for_the_new_one(
    own_valkey: Callable[..., Valkey], tmp_path: Path, by_tls: bool
) -> None:
    old, new = own_valkey(), own_valkey()
    assert new.execute("CONFIG", "SET", "requirepass", old.password) == "+OK"
    authority = self_signed(tmp_path, "localhost")
    target = old.port
    async with AsyncExitStack() as opened:
        port = await opened.enter_async_context(listening(lambda reader, writer: join(reader, writer, target)))
        address = {"redis_host": "localhost", "redis_password": old.password, "redis_tls": by_tls}
        if by_tls:
            port = await opened.enter_async_context(before(port, authority))
            address["redis_ca_file"] = authority
        client = await opened.enter_async_context(create_client(settings(port, **address)))
        script = client.register_script("return redis.call('SET', 'by', 'script')")
        await script()
        assert old.execute("REPLICAOF", "127.0.0.1", "1") == "+OK"
        for write in (script, lambda: client.set("by", "command"), lambda: pipelined(client)):
            target = old.port
            with pytest.raises(ReadOnlyError):
                await write()
            target = new.port
            await write()
            await client.connection_pool.disconnect()
        assert await client.get("by") == "pipeline"


async def pipelined(client: Redis) -> None:
    pipeline = client.pipeline(transaction=False)
    for _ in range(3):
        pipeline.set("by", "pipeline")
    await pipeline.execute()


async def test_absent_cluster__is_an_error_of_the_command(free_port: Callable[[], int]) -> None:
    async with create_client(settings(free_port(), redis_cluster=True)) as redis:
        with pytest.raises(REDIS_ERRORS):
            await redis.ping()
        with pytest.raises(REDIS_ERRORS):
            await run_id(redis, "{predictions}")


async def test_tls__checks_authority_and_host(redis_url: str, valkey: Valkey, tmp_path: Path) -> None:
    authority = self_signed(tmp_path, "localhost")
    known = {"redis_password": valkey.password, "redis_tls": True, "redis_ca_file": authority}
    async with before(valkey.port, authority) as port:
        async with create_client(settings(port, **known, redis_host="localhost")) as client:
            assert await client.ping()
        for wrong in ({"redis_host": "127.0.0.1"}, {"redis_host": "localhost", "redis_ca_file": None}):
            async with create_client(settings(port, **known | wrong)) as client:
                with pytest.raises(REDIS_ERRORS, match="certificate verify failed"):
                    await client.ping()


async def test_writable_server__is_unchanged_by_the_check(redis_url: str, valkey: Valkey) -> None:
    async with create_client(settings(valkey.port, redis_password=valkey.password)) as client:
        await check_writable(client, "stream")
        assert not await client.exists("stream")
        await client.xadd("stream", {"a": "b"})
        await check_writable(client, "stream")
        assert await client.xlen("stream") == 1


async def test_read_only_server__is_an_error(own_valkey: Callable[..., Valkey]) -> None:
    server = own_valkey()
    async with create_client(settings(server.port, redis_password=server.password)) as client:
        await client.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            await check_writable(client, "stream")
        await client.config_set("maxmemory", 0)
        await client.replicaof("127.0.0.1", server.port)
        with pytest.raises(ReadOnlyError):
            await check_writable(client, "stream")

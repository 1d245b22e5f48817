"""Fixtures of the root conftest."""

from collections.abc import Callable

import asyncpg
import redis.asyncio

from launcher.ports import HIGHEST, LOWEST, share_of
from launcher.postgres import Postgres
from launcher.valkey import Valkey


async def test_database_url__is_an_empty_database(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    finally:
        await connection.close()


async def test_redis_settings__are_an_empty_server(redis_settings: dict[str, str | int]) -> None:
    async with redis.asyncio.Redis(**redis_settings) as client:  # type: ignore[arg-type]  # a plain dict of mixed values
        assert await client.dbsize() == 0
        await client.set("left", "behind")


async def test_redis_url__is_an_empty_server(redis_url: str) -> None:
    async with redis.asyncio.from_url(redis_url) as client:
        assert await client.dbsize() == 0
        await client.set("left", "behind")


def test_free_port__is_never_handed_out_twice(free_port: Callable[[], int]) -> None:
    ports = [free_port() for _ in range(50)]
    assert len(set(ports)) == 50
    assert max(ports) < 32768


def test_shares_of_ports__are_disjoint_and_not_ephemeral() -> None:
    for shares in (1, 2, 3, 4):
        ports = [port for number in range(shares) for port in share_of(number, shares)]
        assert len(set(ports)) == len(ports) > 22_000
        assert LOWEST <= min(ports) and max(ports) <= HIGHEST


def test_own_valkey__keeps_acknowledged_writes_after_a_kill(own_valkey: Callable[..., Valkey]) -> None:
    server = own_valkey(appendonly="yes", appendfsync="always")
    server.execute("SET", "kept", "yes")
    server.kill()
    server.start()
    assert server.execute("EXISTS", "kept") == ":1"


def test_own_postgres__restarts_on_the_same_port_after_a_kill(own_postgres: Callable[..., Postgres]) -> None:
    server = own_postgres()
    server.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    url = server.url()
    server.kill()
    server.start()
    assert server.url() == url
    assert server.execute("SELECT answer FROM kept") == "42"

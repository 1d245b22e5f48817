import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from chaos.system.proxy import Proxy


@pytest.fixture
async def echo_port() -> AsyncIterator[int]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1024):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def hears(self, data: bytes) -> bool:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(len(data)) == data

    async def is_reset(self) -> bool:
        async with asyncio.timeout(10):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True


@pytest.fixture
async def proxy(echo_port: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(echo_port, delay_s=0.05)
    yield proxy
    await proxy.close()


async def client(port: int) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", port))


async def test_pass__carries_bytes_both_ways_and_the_end(proxy: Proxy) -> None:
    one = await client(await proxy.start())
    one.say(b"hello")
    assert await one.hears(b"hello")
    one.writer.write_eof()
    assert await one.is_reset()
    one.writer.close()


async def test_cut__resets_what_is_open_and_what_comes_until_it_passes_again(proxy: Proxy) -> None:
    port = await proxy.start()
    one = await client(port)
    one.say(b"hello")
    assert await one.hears(b"hello")
    proxy.set("cut")
    assert await one.is_reset()
    two = await client(port)
    assert await two.is_reset()
    proxy.set("pass")
    three = await client(port)
    three.say(b"again")
    assert await three.hears(b"again")
    for each in (one, two, three):
        each.writer.close()


async def test_hang__keeps_bytes_until_it_passes_again(proxy: Proxy) -> None:
    port = await proxy.start()
    one = await client(port)
    one.say(b"before")
    assert await one.hears(b"before")
    proxy.set("hang")
    one.say(b"during")
    hearing = asyncio.create_task(one.hears(b"during"))
    _, waiting = await asyncio.wait({hearing}, timeout=0.2)
    assert waiting == {hearing}
    two = await client(port)
    two.say(b"new")
    proxy.set("pass")
    assert await hearing
    assert await two.hears(b"new")
    for each in (one, two):
        each.writer.close()


async def test_delay__holds_each_way_back(proxy: Proxy) -> None:
    one = await client(await proxy.start())
    proxy.set("delay")
    started = asyncio.get_running_loop().time()
    one.say(b"slow")
    assert await one.hears(b"slow")
    assert asyncio.get_running_loop().time() - started >= 0.1
    one.writer.close()


async def test_server_that_is_away__ends_the_client(free_port: Callable[[], int]) -> None:
    proxy = Proxy(free_port())
    one = await client(await proxy.start())
    assert await one.is_reset()
    one.writer.close()
    await proxy.close()
    assert proxy.connections == 0

"""A name server that hangs is asked once at a time for a name, whoever dials it and however often."""

import asyncio
import gc
import socket
from typing import Any

import pytest

from common.runtime.settings import RedisSettings
from common.stores.names import look_up
from common.stores.postgres import POSTGRES_ERRORS, connect
from common.stores.redis import REDIS_ERRORS, create_client


@pytest.fixture
async def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were asked for; no answer comes."""
    asked: list[str] = []

    async def hang(host: str, *_: Any, **__: Any) -> None:
        asked.append(host)
        await asyncio.shield(asyncio.get_running_loop().create_future())  # no thread is given back

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    return asked


async def test_postgres_whose_name_hangs__is_one_question(questions: list[str]) -> None:
    async def dial() -> None:
        with pytest.raises(POSTGRES_ERRORS):
            await connect("postgresql://u:p@db.example/x", timeout=0.05)

    await asyncio.gather(dial(), dial())
    await dial()
    assert questions == ["db.example"]


async def test_redis_whose_name_hangs__is_one_question(questions: list[str]) -> None:
    settings = RedisSettings(redis_host="redis.example", redis_timeout_s=0.1)
    async with create_client(settings, timeout_s=60) as redis, asyncio.timeout(30):  # who waits long dials for as short
        for _ in range(3):
            with pytest.raises(REDIS_ERRORS):
                await redis.ping()
    assert questions == ["redis.example"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ""])
async def test_address__is_not_asked_for(questions: list[str], host: str) -> None:
    await look_up(host)
    assert questions == []


async def test_name_that_does_not_exist__is_an_error_and_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def deny(host: str, *_: Any) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", deny)
    for _ in range(2):
        with pytest.raises(OSError, match="no such name"):
            await look_up("nowhere.example")
    assert len(asked) == 2


async def test_error_that_comes_when_all_have_given_up__is_told_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[None] = loop.create_future()
    told: list[dict[str, Any]] = []

    async def answered_late(*_: Any) -> None:
        await answer

    monkeypatch.setattr(loop, "getaddrinfo", answered_late)
    loop.set_exception_handler(lambda _, context: told.append(context))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(look_up("late.example"), 0.01)
    answer.set_exception(socket.gaierror(socket.EAI_NONAME, "no such name"))
    await asyncio.sleep(0)
    with pytest.raises(OSError, match="no such name"):
        await look_up("late.example")  # in place of the first
    gc.collect()
    assert told == []

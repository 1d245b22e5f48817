"""The engine in threads of this process: it reads while it scores, and no library's panic ends a thread or the loop."""

import asyncio
import os
from typing import Any

import pytest

from inference.engines.base import Row
from inference.engines.thread import EngineThreadError, ThreadClient


async def until_read(stage: Any, texts: int) -> None:
    while stage.read < texts:
        await asyncio.sleep(0.001)


async def test_texts__are_read_and_scored(stage: Any) -> None:
    host = await stage.client()
    read = stage.encode("good film")
    assert (await host.score(["good film"])).rows == [Row(stage.scores(read), read.tokens)]
    assert host.card is stage.card
    await host.close()
    assert stage.closed == 1


async def test_batch__is_read_while_another_is_scored(stage: Any) -> None:
    host = await stage.client()
    stage.is_warm = True
    stage.hold()
    answers = [asyncio.create_task(host.score(["good"])) for _ in range(2)]
    await stage.entered()
    async with asyncio.timeout(60):
        await until_read(stage, 2)
    assert not any(answer.done() for answer in answers)
    stage.release()
    await asyncio.gather(*answers)
    await host.close()


@pytest.mark.parametrize(
    ("text", "error"), [("poison", ValueError), ("unreadable", ValueError), ("panics", EngineThreadError)]
)
async def test_text_that_raises__leaves_the_threads_alive(stage: Any, text: str, error: type[Exception]) -> None:
    host = await stage.client()
    with pytest.raises(error):
        await host.score([text])
    assert len((await host.score(["good"])).rows) == 1
    await host.close()


async def test_engine_whose_making_panics__is_an_error_of_the_start() -> None:
    def make() -> Any:
        raise SystemExit

    with pytest.raises(EngineThreadError, match="SystemExit"):
        await ThreadClient.start(make)


async def test_call_whose_caller_left__is_not_made(stage: Any) -> None:
    host = await stage.client()
    stage.is_warm = True
    stage.hold()
    first, left = (asyncio.create_task(host.score([text])) for text in ("good", "bad"))
    await stage.entered()
    await until_read(stage, 2)
    left.cancel()
    await asyncio.wait([left])
    stage.release()
    await first
    await host.close()
    assert len(stage.batches) == 1


async def test_hanging_engine__does_not_hold_up_the_end(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.engines.thread._END_S", 0.01)
    host = await stage.client()
    stage.is_warm = True
    stage.hold()
    hangs = asyncio.create_task(host.score(["good"]))
    await stage.entered()
    async with asyncio.timeout(30):
        await host.close()
    stage.release()
    await hangs


async def test_niceness_that_is_refused__does_not_matter(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refuse)
    async with asyncio.timeout(10):
        host = await stage.client()
        await host.score(["good"])
    await host.close()

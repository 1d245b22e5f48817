"""The engine in threads: it tokenises while it scores. `batching` tests texts and engines that fail in them."""

import asyncio
from typing import Any

import pytest


async def until_tokenised(stage: Any, texts: int) -> None:
    while stage.read < texts:
        await asyncio.sleep(0.001)


async def test_batch__is_tokenised_while_another_is_scored(stage: Any) -> None:
    client = await stage.client()
    stage.is_warm = True
    stage.hold()
    answers = [asyncio.create_task(client.score(["good"])) for _ in range(2)]
    await stage.entered()
    async with asyncio.timeout(60):
        await until_tokenised(stage, 2)
    assert not any(answer.done() for answer in answers)
    stage.release()
    await asyncio.gather(*answers)
    await client.close()


async def test_cancelled_call__is_not_made(stage: Any) -> None:
    client = await stage.client()
    stage.is_warm = True
    stage.hold()
    first, left = (asyncio.create_task(client.score([text])) for text in ("good", "bad"))
    await stage.entered()
    await until_tokenised(stage, 2)
    left.cancel()
    await asyncio.wait([left])
    stage.release()
    await first
    await client.close()
    assert len(stage.batches) == 1


async def test_hanging_engine__does_not_block_close(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.engines.thread._END_S", 0.01)
    client = await stage.client()
    stage.is_warm = True
    stage.hold()
    hangs = asyncio.create_task(client.score(["good"]))
    await stage.entered()
    async with asyncio.timeout(30):
        await client.close()
    stage.release()
    await hangs

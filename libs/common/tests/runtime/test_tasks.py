"""A background task ends even when one cancellation is lost; one that ends by itself breaks the service."""

import asyncio

import pytest

from common.runtime.tasks import cancel_and_wait, supervised


async def test_task_that_loses_a_cancellation__is_cancelled_again() -> None:
    lost = 0

    async def careless() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if lost == 2:
                    raise
                lost += 1

    task = asyncio.create_task(careless())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancel_and_wait(task)
    assert (task.cancelled(), lost) == (True, 2)


async def test_background_task_that_fails__breaks_the_service_and_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    async def fail() -> None:
        raise ValueError("failed")

    fatal = asyncio.Event()
    async with supervised(fail(), "watch", fatal), asyncio.timeout(5):
        await fatal.wait()
    printed = capsys.readouterr()
    assert "background task ended" in printed.out + printed.err


async def test_background_task_at_the_end_of_its_block__is_cancelled_and_breaks_nothing() -> None:
    fatal, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with supervised(work(), "watch", fatal):
        await asyncio.sleep(0)
    assert ended.is_set() and not fatal.is_set()


async def test_background_task_that_can_be_asked_to_stop__finishes_first() -> None:
    fatal, asked, finished = asyncio.Event(), asyncio.Event(), []

    async def work() -> None:
        await asked.wait()
        await asyncio.sleep(0)
        finished.append(True)

    async with supervised(work(), "consumer", fatal, stop=asked.set, drain_s=5):
        pass
    assert finished and not fatal.is_set()


async def test_background_task_that_does_not_stop_in_time__is_cancelled() -> None:
    fatal = asyncio.Event()
    async with supervised(asyncio.sleep(3600), "consumer", fatal, stop=lambda: None, drain_s=0.01):
        pass
    assert not fatal.is_set()

"""What must survive: killed services and restarted stores, under load."""

import asyncio

import pytest
from compose.load import Load, unrecorded
from compose.stack import SERVICES, STORES, Stack


async def lives_through(stack: Stack, service: str, harm: str) -> Load:
    load = Load(stack.urls)
    running = asyncio.create_task(load.run())
    await load.answered(50)
    (container,) = stack.containers(service)
    await asyncio.to_thread(getattr(stack, harm), container)
    load.urls = stack.urls  # out of a range, Docker may have taken another port
    await load.answered(50)
    load.stop()
    await running
    return load


@pytest.mark.parametrize("service", SERVICES)
async def test_a_killed_service__loses_no_answered_prediction(stack: Stack, service: str) -> None:
    load = await lives_through(stack, service, "crash")
    assert await unrecorded(stack, load) == set()


@pytest.mark.parametrize("store", STORES)
async def test_a_restarted_store__loses_no_answered_prediction(stack: Stack, store: str) -> None:
    load = await lives_through(stack, store, "restart")
    assert await unrecorded(stack, load) == set()


async def test_after_all_of_it__each_event_is_stored_once(stack: Stack) -> None:
    assert stack.sql("SELECT count(*) - count(DISTINCT event_id) FROM metrics.prediction") == "0"

"""Killed services and restarted stores, under load."""

import asyncio

import pytest
from compose.load import Load, unrecorded
from compose.stack import SERVICES, STORES, Stack


async def disturb(stack: Stack, service: str, harm: str) -> Load:
    load = Load(stack.urls)
    running = asyncio.create_task(load.run())
    await load.answered(50)
    (container,) = stack.containers(service)
    await asyncio.to_thread(getattr(stack, harm), container)
    load.urls = stack.urls  # Docker may have published another port of the range
    await load.answered(50)
    load.stop()
    await running
    return load


@pytest.mark.parametrize("service", SERVICES)
async def test_killed_service__loses_no_answered_prediction(stack: Stack, service: str) -> None:
    load = await disturb(stack, service, "crash")
    assert await unrecorded(stack, load) == set()


@pytest.mark.parametrize("store", STORES)
async def test_restarted_store__loses_no_answered_prediction(stack: Stack, store: str) -> None:
    load = await disturb(stack, store, "restart")
    assert await unrecorded(stack, load) == set()


async def test_all_faults__store_each_event_once(stack: Stack) -> None:
    assert stack.sql("SELECT count(*) - count(DISTINCT event_id) FROM metrics.prediction") == "0"

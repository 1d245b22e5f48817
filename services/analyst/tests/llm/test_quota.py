"""The global quota on a real Redis-protocol server: exact in every trailing window, idempotent, blockable."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from analyst.llm.quota import Quota
from analyst.llm.retry import Grant, QuotaUnavailable
from launcher.valkey import Valkey

PROCESSES, TRIES, LIMIT, WINDOW_S = 4, 500, 10, 0.4
WINDOW_US = round(WINDOW_S * 1_000_000)


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True, retry=Retry(NoBackoff(), 0)) as client:
        yield client


async def _tries(url: str, seed: int) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("quota_process.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), url, str(seed), str(TRIES), str(LIMIT), str(WINDOW_S)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in output.splitlines()]


async def test_four_processes__are_granted_and_refused_as_an_oracle_counts_by_redis_time(redis_url: str) -> None:
    """The processes' clocks are up to 90 s apart. Of each of the 2,000 tries the oracle knows between which of Redis's
    times it was decided, and of each slot when exactly it was taken.
    """
    tries = [
        attempt
        for found in await asyncio.gather(*(_tries(redis_url, n) for n in range(PROCESSES)))
        for attempt in found
    ]
    granted = sorted(attempt["granted_us"] for attempt in tries if attempt["granted_us"] is not None)
    refused = [attempt for attempt in tries if attempt["granted_us"] is None]
    assert len(tries) == PROCESSES * TRIES
    assert len(granted) > 2 * LIMIT and len(refused) > 2 * LIMIT  # several windows passed
    for attempt in tries:
        if attempt["granted_us"] is not None:
            assert attempt["remaining"] == LIMIT - _used(granted, attempt["granted_us"]) >= 0
    for attempt in refused:  # at the time implied by its wait all slots were taken, and the first release ends the wait
        moments = [taken + WINDOW_US - attempt["wait_us"] for taken in granted]
        assert [
            taken
            for taken, moment in zip(granted, moments, strict=True)
            if attempt["before_us"] <= moment <= attempt["after_us"]
            and _used(granted, moment) == LIMIT
            and taken == next(first for first in granted if first > moment - WINDOW_US)
        ], attempt


def _used(granted: list[int], at_us: int) -> int:
    """Slots that are taken in the window that ends at `at_us`."""
    return sum(at_us - WINDOW_US < taken <= at_us for taken in granted)


async def _now_s(redis: Redis) -> float:
    seconds, us = await redis.time()
    return float(seconds + us / 1e6)


async def test_the_same_member__is_the_same_slot(redis: Redis) -> None:
    quota = Quota(redis, 2)
    assert [await quota.take("a") for _ in range(5)] == [Grant(True, 1, 0.0, "granted")] * 5
    assert [await quota.take("b") for _ in range(2)] == [Grant(True, 0, 0.0, "granted")] * 2
    assert await Quota(redis, 1).take("a") == Grant(True, 0, 0.0, "granted")  # also by a limit that was lowered since
    refused = await quota.take("c")
    assert (refused.granted, refused.reason) == (False, "quota")
    assert 0 < refused.wait_s <= 61


async def test_slots__are_kept_for_as_long_as_they_count(redis: Redis) -> None:
    await Quota(redis, 2).take("a")
    assert 50_000 < await redis.pttl("analyst:{quota}:log") <= 62_000


async def test_a_refund__frees_the_slot(redis: Redis) -> None:
    quota = Quota(redis, 1)
    await quota.take("a")
    await quota.refund("a")
    assert (await quota.take("b")).granted


async def test_a_lowered_limit__says_when_enough_slots_have_ended(redis: Redis) -> None:
    for member in "abc":
        assert (await Quota(redis, 3).take(member)).granted
    await redis.zincrby("analyst:{quota}:log", -10e6, "a")
    first_us, last_us = [await redis.zscore("analyst:{quota}:log", member) or 0.0 for member in "ac"]
    begun_s = await _now_s(redis)
    slots = [await Quota(redis, 1).look(), await Quota(redis, 1).take("d"), await Quota(redis, 3).take("d")]
    ended_s = await _now_s(redis)
    assert [(slot.granted, slot.remaining) for slot in slots] == [(False, 0)] * 3
    for slot, ends_us in zip(slots, (last_us, last_us, first_us), strict=True):
        assert begun_s - 1e-5 < ends_us / 1e6 + 61 - slot.wait_s < ended_s + 1e-5


async def test_slots_ahead_of_a_clock_that_was_set_back__count_from_then_on(redis: Redis) -> None:
    quota = Quota(redis, 2)
    for member in "ab":
        await quota.take(member)
    for member in "ab":
        await redis.zincrby("analyst:{quota}:log", 3_600e6, member)
    assert (await quota.look()).granted  # otherwise no replica would try
    refused = await quota.take("c")
    assert (refused.granted, refused.wait_s) == (False, quota.window_s)
    assert not (await quota.look()).granted


async def test_a_block__holds_for_every_replica_and_is_never_shortened(redis: Redis) -> None:
    quota = Quota(redis, 10)
    for wait_s in (1, 30, 1):
        await quota.block(wait_s)
    assert 25_000 < await redis.pttl("analyst:{quota}:block") <= 30_001
    refused = await quota.take("a")
    assert (refused.granted, refused.reason) == (False, "blocked")
    assert 25 < refused.wait_s <= 30


async def test_no_server__is_a_named_error(free_port: object) -> None:
    assert callable(free_port)
    async with Redis(port=free_port(), retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(QuotaUnavailable):
            await Quota(client, 10).refund("a")
        with pytest.raises(QuotaUnavailable):
            await Quota(client, 1).take("a")


async def test_a_look__takes_nothing_and_tells_what_a_try_would_get(redis: Redis) -> None:
    quota = Quota(redis, 2)
    for left in (2, 1):
        assert [((slot := await quota.look()).granted, slot.remaining) for _ in range(3)] == [(True, left)] * 3
        await quota.take(f"slot {left}")
    begun_s = await _now_s(redis)
    looked, tried = await quota.look(), await quota.take("one more")
    passed_s = await _now_s(redis) - begun_s
    assert (looked.granted, looked.reason) == (tried.granted, tried.reason) == (False, "quota")
    assert -1e-5 < looked.wait_s - tried.wait_s < passed_s + 1e-5
    await quota.block(500)
    looked, tried = await quota.look(), await quota.take("one more")
    assert (looked.granted, looked.remaining, looked.reason) == (False, 0, "blocked")
    assert (tried.granted, tried.remaining, tried.reason) == (False, 0, "blocked")
    assert 450 < tried.wait_s <= looked.wait_s <= 500


async def test_slot_whose_window_has_passed__is_free_again(redis: Redis) -> None:
    quota = Quota(redis, 1)
    await quota.take("a")
    await redis.zincrby("analyst:{quota}:log", -61e6, "a")
    assert (await quota.look()).granted
    assert (await quota.take("b")).granted


async def test_left__is_told_by_the_clock_after_a_refusal(redis: Redis) -> None:
    now = [0.0]
    quota = Quota(redis, 2, now=lambda: now[0])
    assert quota.left == 2
    left = []
    for member in "abc":
        slot = await quota.take(member)
        left.append(quota.left)
    assert left == [1, 0, 0]
    now[0] = slot.wait_s - 0.001
    assert quota.left == 0
    now[0] = slot.wait_s
    assert quota.left == 1
    now[0] = 61.0
    assert quota.left == 2


async def test_left_after_the_last_slot__is_none_until_a_window_has_passed(redis: Redis) -> None:
    now = [0.0]
    quota = Quota(redis, 1, now=lambda: now[0])
    await quota.take("a")
    now[0] = 60.9
    assert quota.left == 0
    now[0] = 61.0
    assert quota.left == 1


async def test_connections_cut__the_next_try_is_still_one_slot(redis: Redis, valkey: Valkey) -> None:
    quota = Quota(redis, 3)
    await quota.take("a")
    valkey.execute("CLIENT", "KILL", "TYPE", "normal")
    assert (await quota.take("b")).remaining == 1

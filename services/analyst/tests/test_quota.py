"""The global quota on a real Redis-protocol server: exact in every trailing window, idempotent, blockable."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from analyst.attempts import QuotaUnavailable
from analyst.quota import Quota
from launcher.valkey import Valkey

PROCESSES, TRIES, LIMIT, WINDOW_S = 4, 500, 10, 0.4


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True, retry=Retry(NoBackoff(), 0)) as client:
        yield client


async def _granted_us(url: str, seed: int) -> list[int]:
    script = Path(__file__).with_name("quota_process.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), url, str(seed), str(TRIES), str(LIMIT), str(WINDOW_S)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return [int(line) for line in output.split()]


async def test_four_processes__never_exceed_the_limit_in_any_trailing_window(redis_url: str) -> None:
    """The processes' clocks are up to 90 s apart. The oracle counts every trailing window in Redis's time."""
    granted = sorted(
        t for ts in await asyncio.gather(*(_granted_us(redis_url, n) for n in range(PROCESSES))) for t in ts
    )
    window_us = round(WINDOW_S * 1_000_000)
    worst = max(sum(end - window_us < time <= end for time in granted) for end in granted)
    assert worst == LIMIT
    assert len(granted) > 2 * LIMIT  # several windows passed
    waits = [later - earlier for earlier, later in zip(granted, granted[LIMIT:], strict=False)]
    assert min(waits) >= window_us


async def test_the_same_member__is_the_same_slot(redis: Redis) -> None:
    quota = Quota(redis, 2)
    assert [(await quota.take("a")).granted for _ in range(5)] == [True] * 5
    assert (await quota.take("b")).remaining == 0
    refused = await quota.take("c")
    assert (refused.granted, refused.reason) == (False, "quota")
    assert 0 < refused.wait_s <= 61


async def test_a_refund__frees_the_slot(redis: Redis) -> None:
    quota = Quota(redis, 1)
    await quota.take("a")
    await quota.refund("a")
    assert (await quota.take("b")).granted


async def test_a_lowered_limit__says_when_enough_slots_have_ended(redis: Redis) -> None:
    for member in "abc":
        assert (await Quota(redis, 3).take(member)).granted
    first_us, last_us = [await redis.zscore("analyst:{quota}:log", member) or 0.0 for member in "ac"]
    lowered = await Quota(redis, 1).take("d")
    restored = await Quota(redis, 3).take("d")
    assert not lowered.granted and not restored.granted
    assert lowered.wait_s - restored.wait_s == pytest.approx((last_us - first_us) / 1e6, abs=0.05)


async def test_a_block__holds_for_every_replica_and_is_never_shortened(redis: Redis) -> None:
    quota = Quota(redis, 10)
    await quota.block(30)
    await quota.block(1)
    refused = await quota.take("a")
    assert (refused.granted, refused.reason) == (False, "blocked")
    assert 25 < refused.wait_s <= 30


async def test_no_server__is_a_named_error(free_port: object) -> None:
    assert callable(free_port)
    async with Redis(port=free_port(), retry=Retry(NoBackoff(), 0)) as client:
        with pytest.raises(QuotaUnavailable):
            await Quota(client, 1).take("a")


async def test_a_look__takes_nothing_and_tells_what_a_try_would_get(redis: Redis) -> None:
    quota = Quota(redis, 2)
    for left in (2, 1):
        assert [((slot := await quota.look()).granted, slot.remaining) for _ in range(3)] == [(True, left)] * 3
        await quota.take(f"slot {left}")
    looked, tried = await quota.look(), await quota.take("one more")
    assert (looked.granted, looked.reason) == (tried.granted, tried.reason) == (False, "quota")
    assert looked.wait_s == pytest.approx(tried.wait_s, abs=1)
    await quota.block(500)
    assert (await quota.look()).reason == "blocked"


async def test_left__is_told_by_the_clock_after_a_refusal(redis: Redis) -> None:
    now = [1000.0]
    quota = Quota(redis, 2, now=lambda: now[0])
    assert quota.left == 2
    left = []
    for member in "abc":
        slot = await quota.take(member)
        left.append(quota.left)
    assert left == [1, 0, 0]
    now[0] += slot.wait_s - 0.001
    assert quota.left == 0
    now[0] += 0.001
    assert quota.left == 1
    now[0] += 61 - slot.wait_s
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

"""The retry schedule: which errors are retried, the waits, and one slot per attempt."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyst.llm.client import (
    ATTEMPTS,
    Budget,
    Completion,
    Fatal,
    LLMError,
    NotSent,
    Prompt,
    RateLimited,
    Retryable,
)
from analyst.llm.retry import Grant, QuotaExhausted, QuotaUnavailable, RetryingClient

PROMPT = Prompt("system", "user", {})


@dataclass
class ScriptedClient:
    """Raises its errors one after the other, then answers."""

    errors: list[LLMError]
    model: str = "scripted"
    calls: int = 0

    async def complete(self, prompt: Prompt, timeout_s: float) -> Completion:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return Completion("answer", self.model)

    async def close(self) -> None:
        pass


@dataclass
class CountedSlots:
    """Grants `free` slots and remembers what happened to them."""

    free: int = 100
    taken: list[str] = field(default_factory=list)
    refunded: list[str] = field(default_factory=list)
    blocks: list[float] = field(default_factory=list)

    async def take(self, member: str) -> Grant:
        if len(self.taken) - len(self.refunded) >= self.free:
            return Grant(False, 0, 12.5, "quota")
        self.taken.append(member)
        return Grant(True, 1, 0.0, "granted")

    async def refund(self, member: str) -> None:
        self.refunded.append(member)

    async def block(self, wait_s: float) -> None:
        self.blocks.append(wait_s)


@dataclass
class Bench:
    client: ScriptedClient
    slots: CountedSlots = field(default_factory=CountedSlots)
    share: float = 0.5
    waits: list[float] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    budget: Budget = field(default_factory=lambda: Budget(deadline_s=1000.0))

    async def complete(self) -> Completion:
        tokens = iter(range(100))
        attempts = RetryingClient(
            self.client,
            self.slots,
            attempt_timeout_s=1.0,
            new_token=lambda: f"attempt-{next(tokens)}",
            uniform=lambda low, high: low + self.share * (high - low),
            on_outcome=self.outcomes.append,
            sleep=self._sleep,
            now=lambda: sum(self.waits),
        )
        return await attempts.complete(PROMPT, self.budget)

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)


@given(share=st.floats(0, 1))
async def test_waits__are_none_then_1_to_2_then_2_to_4_then_4_to_8_seconds(share: float) -> None:
    bench = Bench(ScriptedClient([Retryable("unavailable") for _ in range(ATTEMPTS)]), share=share)
    with pytest.raises(Retryable):
        await bench.complete()
    assert bench.client.calls == len(bench.slots.taken) == 4
    assert [low <= wait <= 2 * low for low, wait in zip((1, 2, 4), bench.waits, strict=True)] == [True] * 3


async def test_a_passing_failure__is_overcome() -> None:
    bench = Bench(ScriptedClient([Retryable("unavailable"), Retryable("timeout")]))
    assert await bench.complete() == Completion("answer", "scripted")
    assert bench.outcomes == ["unavailable", "timeout", "ok"]
    assert len(set(bench.slots.taken)) == 3


async def test_a_longer_wait_asked_by_the_provider__wins() -> None:
    bench = Bench(ScriptedClient([Retryable("unavailable", retry_after_s=30.0)]))
    await bench.complete()
    assert bench.waits == [30.0]


async def test_attempts__are_those_that_the_report_has_left() -> None:
    budget = Budget(deadline_s=1000.0, attempts=3)
    first = Bench(ScriptedClient([Retryable("unavailable")]), budget=budget)
    await first.complete()
    second = Bench(ScriptedClient([Retryable("unavailable")]), budget=budget)
    with pytest.raises(Retryable):
        await second.complete()
    assert (first.client.calls, second.client.calls, second.waits) == (2, 1, [])


@pytest.mark.parametrize(("deadline_s", "calls"), [(30.0, 1), (30.1, 2)])
async def test_wait_that_outlasts_the_reports_time__is_not_begun(deadline_s: float, calls: int) -> None:
    bench = Bench(ScriptedClient([Retryable("unavailable", retry_after_s=30.0), Fatal("blocked")]))
    bench.budget = Budget(deadline_s)
    with pytest.raises(LLMError):
        await bench.complete()
    assert (bench.client.calls, bench.waits) == (calls, [30.0] * (calls - 1))


@pytest.mark.parametrize("reason", ["invalid", "unauthorised", "not_found", "blocked", "truncated"])
async def test_what_would_fail_again__is_asked_once(reason: str) -> None:
    bench = Bench(ScriptedClient([Fatal(reason)]))  # type: ignore[arg-type]  # parametrized over the Literal's values
    with pytest.raises(Fatal):
        await bench.complete()
    assert (bench.client.calls, bench.waits) == (1, [])


async def test_429__is_never_retried_and_blocks_every_replica() -> None:
    bench = Bench(ScriptedClient([RateLimited(7.0)]))
    with pytest.raises(RateLimited):
        await bench.complete()
    assert (bench.client.calls, bench.slots.blocks, bench.slots.refunded) == (1, [7.0], [])


async def test_429_for_weeks__blocks_for_an_hour() -> None:
    bench = Bench(ScriptedClient([RateLimited(999_999.0)]))
    with pytest.raises(RateLimited):
        await bench.complete()
    assert bench.slots.blocks == [3600.0]


async def test_only_an_attempt_that_sent_nothing__gets_its_slot_back() -> None:
    bench = Bench(ScriptedClient([NotSent("not_connected"), Retryable("connection")]))
    await bench.complete()
    assert bench.slots.refunded == bench.slots.taken[:1]


async def test_no_free_slot__calls_nobody() -> None:
    bench = Bench(ScriptedClient([Retryable("unavailable")]), CountedSlots(free=1))
    with pytest.raises(QuotaExhausted):
        await bench.complete()
    assert bench.client.calls == 1


async def test_slots_that_cannot_be_counted__send_nothing() -> None:
    bench = Bench(ScriptedClient([]), UncountedSlots())
    with pytest.raises(QuotaUnavailable):
        await bench.complete()
    assert bench.client.calls == 0


@dataclass
class UncountedSlots(CountedSlots):
    """A quota whose store fails after `free` slots."""

    free: int = 0

    async def take(self, member: str) -> Grant:
        if len(self.taken) >= self.free:
            raise QuotaUnavailable("ConnectionError")
        return await super().take(member)

    async def refund(self, member: str) -> None:
        raise QuotaUnavailable("ConnectionError")

    async def block(self, wait_s: float) -> None:
        raise QuotaUnavailable("ConnectionError")


async def test_block_that_cannot_be_stored__is_still_a_429() -> None:
    with pytest.raises(RateLimited):
        await Bench(ScriptedClient([RateLimited(7.0)]), UncountedSlots(free=1)).complete()


async def test_refund_that_cannot_be_stored__ends_with_the_next_try() -> None:
    bench = Bench(ScriptedClient([NotSent("not_connected")]), UncountedSlots(free=1))
    with pytest.raises(QuotaUnavailable):
        await bench.complete()
    assert bench.outcomes == ["not_connected"]


async def test_cancelled_attempt__keeps_its_slot_and_is_counted() -> None:
    bench = Bench(HangingClient())
    task = asyncio.create_task(bench.complete())
    while not bench.client.calls:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (bench.outcomes, len(bench.slots.taken), bench.slots.refunded) == (["cancelled"], 1, [])


class HangingClient(ScriptedClient):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__([])

    async def complete(self, prompt: Prompt, timeout_s: float) -> Completion:
        self.calls += 1
        await asyncio.Event().wait()
        raise AssertionError

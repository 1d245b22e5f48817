"""Asks the model, again when that can help: immediately, after 1–2 s, 2–4 s and 4–8 s, one quota slot per attempt.

It ends with the report's budget: no attempts left, or a wait that would outlast its time.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from analyst.llm.client import Budget, LLMClient, NotSent, Prompt, RateLimited, Retryable, WriterError

LONGEST_BLOCK_S: Final = 3600.0
"""Whatever one answer says, perhaps a proxy's: else it could do without the model for weeks."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Whether one call may be sent now, how many are left, and how long to wait if none."""

    granted: bool
    remaining: int
    wait_s: float
    reason: Literal["granted", "quota", "blocked"]


class QuotaBackend(Protocol):
    """Where attempts are counted; all raise QuotaUnavailable."""

    async def take(self, member: str) -> Grant:
        """Take one call. `member` must be unique to one attempt."""
        ...

    async def refund(self, member: str) -> None:
        """Give a slot back; only for an attempt of which no byte was sent."""
        ...

    async def block(self, wait_s: float) -> None:
        """The provider refused for `wait_s`: no replica asks again before."""
        ...


class QuotaUnavailable(WriterError):
    """Nobody could count the call, so that it must not be sent."""


class QuotaExhausted(WriterError):
    """No slot is free."""


class RetryingClient:
    """Drafts from one writer. `on_outcome` hears how each attempt ended, for the counters."""

    def __init__(
        self,
        writer: LLMClient,
        slots: QuotaBackend,
        *,
        attempt_timeout_s: float,
        new_token: Callable[[], str],
        uniform: Callable[[float, float], float],
        on_outcome: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._writer = writer
        self._slots = slots
        self._attempt_timeout_s = attempt_timeout_s
        self._new_token = new_token
        self._uniform = uniform
        self._on_outcome = on_outcome
        self._sleep = sleep
        self._now = now

    async def write(self, prompt: Prompt, budget: Budget) -> str:
        """The model's text. Raises QuotaExhausted, QuotaUnavailable, and the WriterError of the last attempt."""

        def is_spent(state: RetryCallState) -> bool:
            return not budget.attempts or self._now() + state.upcoming_sleep >= budget.deadline_s

        retrying = AsyncRetrying(
            stop=is_spent,
            wait=self._wait_s,
            retry=retry_if_exception_type(Retryable),
            sleep=self._sleep,
            reraise=True,
        )
        return await retrying(self._attempt, prompt, budget)

    async def _attempt(self, prompt: Prompt, budget: Budget) -> str:
        budget.attempts -= 1
        member = self._new_token()
        slot = await self._slots.take(member)
        if not slot.granted:
            self._on_outcome("quota")
            raise QuotaExhausted("quota")
        try:
            text = await self._writer.write(prompt, self._attempt_timeout_s)
        except WriterError as error:
            self._on_outcome(_outcome(error))
            await self._settle(member, error)
            raise
        except asyncio.CancelledError:
            self._on_outcome("cancelled")  # sent, perhaps: its slot stays taken
            raise
        self._on_outcome("ok")
        return text

    async def _settle(self, member: str, error: WriterError) -> None:
        with suppress(QuotaUnavailable):  # the next attempt will find out
            if isinstance(error, NotSent):
                await self._slots.refund(member)
            elif isinstance(error, RateLimited):
                await self._slots.block(min(error.retry_after_s, LONGEST_BLOCK_S))

    def _wait_s(self, state: RetryCallState) -> float:
        """Before attempt n+1 a uniform 2^(n-1) to 2^n seconds, or longer when the provider says so."""
        shortest = 2.0 ** (state.attempt_number - 1)
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, Retryable) else None
        return max(self._uniform(shortest, 2 * shortest), asked or 0.0)


def _outcome(error: WriterError) -> str:
    return "rate_limited" if isinstance(error, RateLimited) else str(error)

"""Retries of a model call: immediately, after 1-2 s, 2-4 s and 4-8 s, each counted by the quota.

Retrying ends with the report's budget: no attempts left, or a wait that would exceed its deadline.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from analyst.llm.client import Budget, Completion, LLMClient, LLMError, NotSent, Prompt, RateLimited, Retryable

LONGEST_BLOCK_S: Final = 3600.0
"""Upper limit for what an answer, perhaps of a proxy, may ask for."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Whether one call may be sent now, how many are left, and how long to wait if none."""

    granted: bool
    remaining: int
    wait_s: float
    reason: Literal["granted", "quota", "blocked"]


class QuotaBackend(Protocol):
    """Counts attempts. All methods raise QuotaUnavailable."""

    async def take(self, member: str) -> Grant:
        """Take one call. `member` must be unique to one attempt."""
        ...

    async def refund(self, member: str) -> None:
        """Return the call of an attempt that sent nothing."""
        ...

    async def block(self, wait_s: float) -> None:
        """Let no replica call the model for `wait_s`."""
        ...


class QuotaUnavailable(LLMError):
    """The call could not be counted, so it must not be sent."""


class QuotaExhausted(LLMError):
    """No call is left."""


class RetryingClient:
    """A client with retries. `on_outcome` is called with the outcome of each attempt."""

    def __init__(
        self,
        client: LLMClient,
        quota: QuotaBackend,
        *,
        attempt_timeout_s: float,
        new_token: Callable[[], str],
        uniform: Callable[[float, float], float],
        on_outcome: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._quota = quota
        self._attempt_timeout_s = attempt_timeout_s
        self._new_token = new_token
        self._uniform = uniform
        self._on_outcome = on_outcome
        self._sleep = sleep
        self._now = now

    async def complete(self, prompt: Prompt, budget: Budget) -> Completion:
        """Return the answer. Raises QuotaExhausted, QuotaUnavailable, and the error of the last attempt."""

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

    async def _attempt(self, prompt: Prompt, budget: Budget) -> Completion:
        budget.attempts -= 1
        member = self._new_token()
        slot = await self._quota.take(member)
        if not slot.granted:
            self._on_outcome("quota")
            raise QuotaExhausted("quota")
        try:
            completion = await self._client.complete(prompt, self._attempt_timeout_s)
        except LLMError as error:
            self._on_outcome(_outcome(error))
            await self._settle(member, error)
            raise
        except asyncio.CancelledError:
            self._on_outcome("cancelled")  # it may have been sent, so it stays counted
            raise
        self._on_outcome("ok")
        return completion

    async def _settle(self, member: str, error: LLMError) -> None:
        with suppress(QuotaUnavailable):  # the next attempt will fail on it
            if isinstance(error, NotSent):
                await self._quota.refund(member)
            elif isinstance(error, RateLimited):
                await self._quota.block(min(error.retry_after_s, LONGEST_BLOCK_S))

    def _wait_s(self, state: RetryCallState) -> float:
        """Before attempt n+1, between 2^(n-1) and 2^n seconds, or longer if the provider asks for it."""
        shortest = 2.0 ** (state.attempt_number - 1)
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, Retryable) else None
        return max(self._uniform(shortest, 2 * shortest), asked or 0.0)


def _outcome(error: LLMError) -> str:
    return "rate_limited" if isinstance(error, RateLimited) else str(error)

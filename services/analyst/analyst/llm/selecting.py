"""Offer → prompt → attempts → selection. Each failure becomes a fallback reason."""

from collections.abc import Awaitable, Callable
from typing import Final

from analyst.llm.client import Budget, Fatal, LLMError, RateLimited, Retryable
from analyst.llm.prompt import write_prompt
from analyst.llm.retry import QuotaExhausted, QuotaUnavailable, RetryingClient
from analyst.report.models import FallbackReason
from analyst.report.selection import MalformedSelection, Offer, Selection, UnknownChoice, parse_selection
from analyst.service import SelectionFailed

_FATAL: Final[dict[str, FallbackReason]] = {
    "blocked": "blocked",
    "truncated": "truncated",
    "not_found": "model_not_found",
}
_FINAL: Final = ("blocked", "truncated")
"""The same prompt would fail the same way and cost another call."""


def create_select(client: RetryingClient) -> Callable[[Offer, Budget], Awaitable[Selection]]:
    """Return a function that selects, with one repair of malformed JSON. It raises SelectionFailed."""

    async def select(offer: Offer, budget: Budget) -> Selection:
        errors: list[str] = []
        while True:
            try:
                completion = await client.complete(write_prompt(offer, errors), budget)
            except LLMError as error:
                is_final = bool(errors) or (isinstance(error, Fatal) and error.reason in _FINAL)
                raise SelectionFailed(_reason(error), is_final=is_final) from error
            budget.answered.append(completion)
            try:
                return parse_selection(completion.text, offer)
            except UnknownChoice as error:
                raise SelectionFailed("invalid_answer", is_final=True) from error
            except MalformedSelection as error:
                if errors or not budget.attempts:
                    raise SelectionFailed("invalid_answer", is_final=True) from error
                errors = error.errors
                budget.attempts = 1

    return select


def _reason(error: LLMError) -> FallbackReason:
    match error:
        case QuotaExhausted() | RateLimited():
            return "quota"
        case QuotaUnavailable():
            return "cache_unavailable"
        case Retryable(reason="timeout"):
            return "timeout"
        case Fatal(reason=reason):
            return _FATAL.get(reason, "upstream")
        case _:
            return "upstream"

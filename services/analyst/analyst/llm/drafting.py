"""A model behind the analyst's `Drafter`: brief → prompt → attempts → draft; each failure becomes a fallback reason."""

from collections.abc import Awaitable, Callable
from typing import Final

from pydantic import ValidationError

from analyst.grounding.grounding import Refusal
from analyst.llm.client import Budget, Fatal, RateLimited, Retryable, WriterError
from analyst.llm.prompt import write_prompt
from analyst.llm.retry import QuotaExhausted, QuotaUnavailable, RetryingClient
from analyst.report.models import Draft, FallbackReason
from analyst.service import DraftFailed, DraftMalformed, ReportInput

MAX_ERRORS: Final = 10
_FATAL: Final[dict[str, FallbackReason]] = {"blocked": "blocked", "not_found": "model_not_found"}
_FINAL: Final = ("blocked", "truncated")
"""What the model would make of the same prompt again, and be paid for; other errors end when somebody mends them."""


def create_draft(attempts: RetryingClient) -> Callable[[ReportInput, Budget], Awaitable[Draft]]:
    """Drafts; raises DraftFailed and DraftMalformed."""

    async def draft(brief: ReportInput, budget: Budget) -> Draft:
        try:
            text = await attempts.write(write_prompt(brief), budget)
        except WriterError as error:
            is_final = isinstance(error, Fatal) and error.reason in _FINAL
            raise DraftFailed(_reason(error), is_final=is_final) from error
        return _parsed(text)

    return draft


def _parsed(text: str) -> Draft:
    try:
        return Draft.model_validate_json(text)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        found = [f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in errors[:MAX_ERRORS]]
        raise DraftMalformed([Refusal("draft", "not the JSON that was asked for", words) for words in found]) from None


def _reason(error: WriterError) -> FallbackReason:
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

"""A model behind the analyst's `Drafter`: brief → prompt → attempts → draft, every failure given its fallback reason."""

import asyncio
from collections.abc import Callable
from typing import Final

from pydantic import ValidationError

from analyst.analysis import Brief, Drafter, DraftFailed
from analyst.attempts import Attempts, QuotaExhausted
from analyst.prompting import write_prompt
from analyst.report import Draft, FallbackReason
from analyst.writer import Fatal, RateLimited, Retryable, WriterError

_FATAL: Final[dict[str, FallbackReason]] = {"blocked": "blocked", "not_found": "model_not_found"}


def create_drafter(model: str, attempts: Attempts, total_s: float, on_fatal: Callable[[str], None]) -> Drafter:
    """Drafts within `total_s`, all attempts and waits together. `on_fatal` hears of faults that an operator must mend."""

    async def draft(brief: Brief) -> Draft:
        try:
            async with asyncio.timeout(total_s):
                text = await attempts.write(write_prompt(brief))
        except TimeoutError as error:
            raise DraftFailed("timeout") from error
        except WriterError as error:
            if isinstance(error, Fatal):
                on_fatal(error.reason)
            raise DraftFailed(_reason(error)) from error
        return _parsed(text)

    return Drafter(model, draft)


def _parsed(text: str) -> Draft:
    try:
        return Draft.model_validate_json(text)
    except ValidationError as error:
        raise DraftFailed("malformed") from error


def _reason(error: WriterError) -> FallbackReason:
    match error:
        case QuotaExhausted() | RateLimited():
            return "quota"
        case Retryable(reason="timeout"):
            return "timeout"
        case Fatal(reason=reason):
            return _FATAL.get(reason, "upstream")
        case _:
            return "upstream"

"""`python -m analyst.smoke`: one report by the real Gemini over an invented hour, for those who have a key."""

import asyncio
import random
import secrets
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from analyst.facts.facts import read_facts
from analyst.grounding.checks import run_checks, status_of
from analyst.grounding.grounding import check_draft
from analyst.llm.client import Budget
from analyst.llm.drafting import create_draft
from analyst.llm.factory import open_writer
from analyst.llm.retry import Grant, RetryingClient
from analyst.report.rendering import render
from analyst.service import DraftFailed, DraftMalformed, ReportInput
from analyst.settings import AnalystSettings
from common.contracts.aggregates import Aggregate, Confidence, Latency, Summary
from common.contracts.base import TimeRange
from common.runtime.settings import SettingsError, StartError, load

_NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)


class _OneOwner:
    """Slots for a single user: the account's own quota is the only one."""

    async def take(self, member: str) -> Grant:
        return Grant(True, 1, 0.0, "granted")

    async def refund(self, member: str) -> None:
        pass

    async def block(self, wait_s: float) -> None:
        _say(f"the provider says: wait {wait_s:.0f} s")


def main() -> int:
    """0 and the report, or 1 and the reason."""
    try:
        settings = load(AnalystSettings)
        if settings.gemini_api_key is None:
            _say("Set GEMINI_API_KEY to try the real Gemini; nothing was sent.")
            return 1
        return asyncio.run(_try(settings, settings.gemini_api_key.get_secret_value()))
    except (SettingsError, StartError) as error:
        _say(str(error))
        return 1


async def _try(settings: AnalystSettings, key: str) -> int:
    _say(f"{settings.gemini_model} by the SDK {settings.gemini_sdk}")
    writer = open_writer(settings.gemini_sdk, key, settings.gemini_model, settings.gemini_endpoint)
    attempts = RetryingClient(
        writer,
        _OneOwner(),
        attempt_timeout_s=settings.analyst_attempt_timeout_s,
        new_token=lambda: secrets.token_hex(8),
        uniform=random.uniform,
        on_outcome=lambda outcome: _say(f"attempt: {outcome}"),
    )
    facts = read_facts(_hour(), "1h")
    observations = run_checks(facts)
    brief = ReportInput(facts, observations, status_of(facts, observations), [])
    try:
        async with asyncio.timeout(settings.analyst_ai_timeout_s):
            draft = await create_draft(attempts)(brief, Budget(time.monotonic() + settings.analyst_ai_timeout_s))
    except (DraftFailed, DraftMalformed, TimeoutError) as error:
        _say(f"no draft: {error or 'timeout'}")
        return 1
    finally:
        await writer.close()
    refusals = check_draft(draft, facts, brief.status)
    for refusal in refusals:
        _say(f"refused: {refusal} ({refusal.words})")
    if refusals:
        return 1
    rendered = render(draft, facts)
    for line in (rendered.summary, *(f"- {finding.title}: {finding.detail}" for finding in rendered.findings)):
        _say(line)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _hour() -> Aggregate:
    """Slower and with more errors than the hour before."""
    before = _summary(_NOON - timedelta(hours=1), p95=180.0, errors=40)
    return Aggregate(**_summary(_NOON, p95=420.0, errors=900).model_dump(), previous=before, lag_s=0.0)


def _summary(start: datetime, *, p95: float, errors: int) -> Summary:
    requests = 36_000
    return Summary(
        range=TimeRange(start=start, end=start + timedelta(hours=1)),
        requests=requests,
        predictions=requests - errors,
        rate_limited=0,
        errors={"timeout": errors},
        throughput_per_s=requests / 3600,
        error_rate=errors / requests,
        limited_rate=0.0,
        latency_ms=Latency(
            n=requests - errors,
            mean=90.0,
            p50=60.0,
            p90=150.0,
            p95=p95,
            p99=2 * p95,
            max=1500.0,
            method="exact",
            relative_error=0.0,
        ),
        labels=[],
        confidence=Confidence(mean=0.91, histogram=[0] * 9 + [requests - errors]),
    )


if __name__ == "__main__":
    sys.exit(main())

"""The use case: parameters → a grounded report, computed once for all who ask; knows no HTTP, Redis or model API."""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Final

from pydantic import ValidationError

from analyst.cache.single_flight import Computed, FlightFailed, SingleFlightCache
from analyst.facts.checks import Observation, run_checks, status_of
from analyst.facts.facts import Facts, read_facts
from analyst.grounding.grounding import Refusal, check_draft
from analyst.llm.client import Budget
from analyst.report.limitations import limitations
from analyst.report.models import (
    NO_CALL,
    PROMPT_VERSION,
    SCHEMA_VERSION,
    CacheState,
    Draft,
    FallbackReason,
    Grounding,
    Report,
    Status,
    Windows,
)
from analyst.report.rendering import render
from analyst.report.templates import draft_by_rules
from common.contracts.aggregates import Aggregate, DriftReport
from common.contracts.base import Window

DRAFTS: Final = 2
"""A model's draft, and one repair, which gets a single try."""
PAST: Final = timedelta(minutes=5)
"""What ended longer ago is over: figures up to now are not about it."""
READ_KEPT: Final = 32
"""Payloads that are kept parsed: most requests are for the same few."""

METRICS_UNAVAILABLE: Final = "metrics_unavailable"
METRICS_BROKEN: Final = "metrics_broken"


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a report is about: a window by name, or absolute times aligned to five minutes."""

    window: Window | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """What the metrics service told; `drift` is None where it told the aggregate only."""

    aggregate: Aggregate
    drift: DriftReport | None


class DraftFailed(Exception):
    """A model wrote nothing; `reason` says why, and `is_final` that it would be the same if it were asked again."""

    def __init__(self, reason: FallbackReason, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


class DraftMalformed(Exception):
    """A model wrote something that is no draft; `refusals` say what is wrong with it."""

    def __init__(self, refusals: list[Refusal]) -> None:
        super().__init__(str(refusals[0]))
        self.refusals = refusals


@dataclass(frozen=True, slots=True)
class ReportInput:
    """All that a model is told. `refusals` are the checker's objections to its last draft."""

    facts: Facts
    observations: list[Observation]
    status: Status
    refusals: list[Refusal]


@dataclass(frozen=True, slots=True)
class LLMWriter:
    """A model that drafts reports; `draft` raises DraftFailed and DraftMalformed. All drafts of a report share one
    budget, and take at most `total_s` together.
    """

    model: str
    draft: Callable[[ReportInput, Budget], Awaitable[Draft]]
    total_s: float = 45.0


@dataclass(frozen=True, slots=True)
class DraftResult:
    """A draft that passed the checker, and how it came about. If `is_final`, another try would end the same."""

    draft: Draft
    fallback_reason: FallbackReason | None
    refusals: list[Refusal]
    refused_drafts: int
    is_final: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """A report, also as JSON, its age in the cache, and whether somebody else's request had it computed."""

    report: Report
    body: bytes
    age_s: float
    is_shared: bool


Fetch = Callable[[], Awaitable[MetricsSnapshot]]
"""Asks the metrics service; raises FlightFailed with METRICS_UNAVAILABLE or METRICS_BROKEN."""


def cache_key(parameters: Parameters, model: str | None) -> str:
    """SHA-256 over what determines a report; a relative window enters by its name only, never by its times."""
    document = {
        "parameters": {
            "window": parameters.window,
            "start": parameters.start.astimezone(UTC).isoformat() if parameters.start else None,
            "end": parameters.end.astimezone(UTC).isoformat() if parameters.end else None,
        },
        "prompt_version": PROMPT_VERSION,
        "model": model,
        "schema_version": SCHEMA_VERSION,
    }
    return _sha256(document)


class Analyst:
    """Makes reports; `drafter` is None where no model is configured."""

    def __init__(
        self,
        flights: SingleFlightCache,
        drafter: LLMWriter | None,
        *,
        today: Callable[[], datetime],
        new_id: Callable[[], str],
        observe: Callable[[Report], None],
        on_refused: Callable[[list[Refusal]], None],
    ) -> None:
        self._flights = flights
        self._drafter = drafter
        self._today = today
        self._new_id = new_id
        self._observe = observe
        self._on_refused = on_refused
        self._read = lru_cache(maxsize=READ_KEPT)(_read)

    @property
    def has_model(self) -> bool:
        return self._drafter is not None

    async def report(self, parameters: Parameters, fetch: Fetch) -> Answer:
        """The current report. Raises FlightFailed and FlightsFull."""

        is_shared = True

        async def compute(allow_llm: bool) -> Computed:
            nonlocal is_shared
            is_shared = False
            return await self._compute(parameters, fetch, allow_llm)

        key = cache_key(parameters, self._drafter.model if self._drafter else None)
        served = await self._flights.get(key, compute)
        if (read := self._read(served.payload, served.cache)) is None:
            raise FlightFailed("corrupt")
        return Answer(*read, served.age_s, is_shared)

    async def _compute(self, parameters: Parameters, fetch: Fetch, allow_llm: bool) -> Computed:
        measured = await fetch()
        is_past = parameters.end is not None and self._today() - parameters.end > PAST
        facts = read_facts(measured.aggregate, parameters.window, measured.drift, is_past=is_past)
        observations = run_checks(facts)
        brief = ReportInput(facts, observations, status_of(facts, observations), [])
        drafted = await self._draft(brief, allow_llm)
        report = self._assemble(parameters, measured, brief, drafted)
        self._observe(report)
        has_an_end = report.is_worth_keeping or report.fallback_reason not in NO_CALL  # the quota bounds the calls
        is_wanted = drafted.is_final and has_an_end
        return Computed(
            report.model_dump_json(), is_fallback=not is_wanted, supersedes=partial(self._supersedes, report)
        )

    def _supersedes(self, report: Report, kept: str) -> bool:
        """What rules say now comes before what a model said of another status."""
        read = self._read(kept, "stale")
        return read is not None and read[0].status != report.status

    async def _draft(self, brief: ReportInput, allow_llm: bool) -> DraftResult:
        if self._drafter is None:
            return self._rules(brief, "no_key")
        if not allow_llm:
            return self._rules(brief, "cache_unavailable", is_final=False)
        if not brief.facts.has_traffic:  # no model could say more
            return self._rules(brief, "no_traffic")
        refused: list[list[Refusal]] = []
        budget = Budget(time.monotonic() + self._drafter.total_s)
        try:
            async with asyncio.timeout(self._drafter.total_s):
                while budget.attempts and len(refused) < DRAFTS:
                    brief = replace(brief, refusals=refused[-1] if refused else [])
                    draft, refusals = await _checked_draft(self._drafter, brief, budget)
                    if draft is not None and not refusals:
                        return DraftResult(draft, None, [], len(refused))
                    self._on_refused(refusals)
                    refused.append(refusals)
                    budget.attempts = min(budget.attempts, 1)
        except DraftFailed as error:
            return self._rules(brief, error.reason, refused, is_final=error.is_final or bool(refused))
        except TimeoutError:
            return self._rules(brief, "timeout", refused, is_final=bool(refused))
        return self._rules(brief, "ungrounded", refused)

    def _rules(
        self,
        brief: ReportInput,
        reason: FallbackReason,
        refused: Sequence[list[Refusal]] = (),
        *,
        is_final: bool = True,
    ) -> DraftResult:
        draft = draft_by_rules(brief.facts, brief.observations, brief.status)
        if own := check_draft(draft, brief.facts, brief.status):
            raise AssertionError(f"the rules wrote what the checker refuses: {own[0]}")
        return DraftResult(draft, reason, refused[-1] if refused else [], len(refused), is_final)

    def _assemble(
        self, parameters: Parameters, measured: MetricsSnapshot, brief: ReportInput, drafted: DraftResult
    ) -> Report:
        rendered = render(drafted.draft, brief.facts)
        is_ai = drafted.fallback_reason is None
        return Report(
            report_id=self._new_id(),
            generated_at=self._today(),
            status=brief.status,
            summary=rendered.summary,
            figures=rendered.figures,
            findings=rendered.findings,
            recommendations=rendered.recommendations,
            source="ai" if is_ai else "rules",
            fallback_reason=drafted.fallback_reason,
            cache="miss",
            model=self._drafter.model if is_ai and self._drafter else None,
            prompt_version=PROMPT_VERSION,
            metrics_digest=_digest(measured),
            windows=Windows(
                name=parameters.window,
                current=brief.facts.current,
                previous=brief.facts.previous,
                drift_reference=brief.facts.reference,
            ),
            grounding=Grounding(
                references=len(drafted.draft.evidence),
                refused_drafts=drafted.refused_drafts,
                refusals=[str(refusal) for refusal in drafted.refusals],
            ),
            limitations=limitations(brief.facts),
        )


async def _checked_draft(drafter: LLMWriter, brief: ReportInput, budget: Budget) -> tuple[Draft | None, list[Refusal]]:
    """The model's draft and what the checker says against it. Raises DraftFailed."""
    try:
        draft = await drafter.draft(brief, budget)
    except DraftMalformed as error:
        return None, error.refusals
    return draft, await asyncio.to_thread(check_draft, draft, brief.facts, brief.status)  # the longest takes a second


def _read(payload: str, cache: CacheState) -> tuple[Report, bytes] | None:
    """The report as it is answered, and its JSON; None where the payload is no report."""
    try:
        report = Report.model_validate_json(payload).model_copy(update={"cache": cache})
    except ValidationError:
        return None
    return report, report.model_dump_json().encode()


def _digest(measured: MetricsSnapshot) -> str:
    drift = measured.drift.model_dump(mode="json") if measured.drift is not None else None
    return _sha256({"aggregate": measured.aggregate.model_dump(mode="json"), "drift": drift})


def _sha256(document: object) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()

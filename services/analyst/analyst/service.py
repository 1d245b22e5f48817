"""Computes reports: measure, find the incident, check, select by model or code, and write. Callers share results."""

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Final, get_args

from pydantic import ValidationError

from analyst.cache.single_flight import Computed, FlightFailed, SingleFlightCache
from analyst.facts.checks import run_checks, status_of
from analyst.facts.facts import read_facts
from analyst.facts.incident import MAX_POINTS, Incident, find_incident
from analyst.llm.client import Budget
from analyst.report import models
from analyst.report.limitations import limitations
from analyst.report.models import (
    NO_CALL,
    PROMPT_VERSION,
    SCHEMA_VERSION,
    CacheState,
    FallbackReason,
    Report,
    TokenUsage,
    Windows,
)
from analyst.report.selection import Offer, Selection, default_selection, make_offer
from analyst.report.writing import write
from common.contracts.aggregates import Aggregate, AggregateRequest, Bucket, DriftReport
from common.contracts.windows import WINDOW_S, Window

PAST: Final = timedelta(minutes=5)
"""A window that ended longer ago is past: thresholds, which are evaluated up to now, are not about it."""
PARSED: Final = 32
"""Payloads that stay parsed, because most requests are for the same few."""

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

METRICS_UNAVAILABLE: Final = "metrics_unavailable"
METRICS_BROKEN: Final = "metrics_broken"


@dataclass(frozen=True, slots=True)
class Parameters:
    """The time of a report: a window by name, or absolute times aligned to five minutes."""

    window: Window | None = None
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """What the metrics service returned. `drift` is None if it was unavailable."""

    aggregate: Aggregate
    drift: DriftReport | None


def aggregate_request(parameters: Parameters) -> AggregateRequest:
    """Return the request for a report's aggregate: a series for the incident, and groups for the errors of a route."""
    if parameters.start is not None and parameters.end is not None:
        narrowest_s, length_s = 60.0, (parameters.end - parameters.start).total_seconds()
    else:
        narrowest_s, length_s = 0.0, float(WINDOW_S[parameters.window or "1h"])
    widths_s: dict[Bucket, int] = {name: int(name[:-1]) * _UNITS_S[name[-1]] for name in get_args(Bucket)}
    bucket = next(name for name, width_s in widths_s.items() if width_s >= max(narrowest_s, length_s / MAX_POINTS))
    return AggregateRequest(
        window=parameters.window,
        start=parameters.start,
        end=parameters.end,
        bucket=bucket,
        group_by=["route", "outcome"],
    )


class SelectionFailed(Exception):
    """The model selected nothing. If `is_final`, another try would end the same way."""

    def __init__(self, reason: FallbackReason, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


@dataclass(frozen=True, slots=True)
class LLMSelector:
    """A model that selects. `select` raises SelectionFailed; all calls of a report take at most `total_s`."""

    model: str
    select: Callable[[Offer, Budget], Awaitable[Selection]]
    total_s: float = 45.0


@dataclass(frozen=True, slots=True)
class SelectionResult:
    """A selection, why code made it, and whether another try would end the same way."""

    selection: Selection
    budget: Budget
    fallback_reason: FallbackReason | None = None
    is_final: bool = True


@dataclass(frozen=True, slots=True)
class Answer:
    """A report, its JSON, its age in the cache, and whether another request computed it."""

    report: Report
    body: bytes
    age_s: float
    is_shared: bool


Fetch = Callable[[], Awaitable[MetricsSnapshot]]
"""Reads the metrics; raises FlightFailed with METRICS_UNAVAILABLE or METRICS_BROKEN."""


def cache_key(parameters: Parameters, model: str | None) -> str:
    """Return the SHA-256 of what determines a report. A window enters by its name, never by its times."""
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
    """Computes reports. `selector` is None without a model."""

    def __init__(
        self,
        cache: SingleFlightCache,
        selector: LLMSelector | None,
        *,
        today: Callable[[], datetime],
        new_id: Callable[[], str],
        observe: Callable[[Report], None],
    ) -> None:
        self._cache = cache
        self._selector = selector
        self._today = today
        self._new_id = new_id
        self._observe = observe
        self._parse = lru_cache(maxsize=PARSED)(_parse)

    @property
    def has_model(self) -> bool:
        return self._selector is not None

    async def report(self, parameters: Parameters, fetch: Fetch) -> Answer:
        """Return the current report. Raises FlightFailed and TooManyComputations."""
        is_shared = True

        async def compute(allow_llm: bool) -> Computed:
            nonlocal is_shared
            is_shared = False
            return await self._compute(parameters, fetch, allow_llm)

        served = await self._cache.get(cache_key(parameters, self._selector.model if self._selector else None), compute)
        if (parsed := self._parse(served.payload, served.cache)) is None:
            raise FlightFailed("corrupt")
        return Answer(*parsed, served.age_s, is_shared)

    async def _compute(self, parameters: Parameters, fetch: Fetch, allow_llm: bool) -> Computed:
        snapshot = await fetch()
        is_past = parameters.end is not None and self._today() - parameters.end > PAST
        facts = read_facts(snapshot.aggregate, parameters.window, snapshot.drift, is_past=is_past)
        observations = run_checks(facts)
        offer = make_offer(facts, observations, status_of(facts, observations))
        result = await self._select(offer, allow_llm)
        headline = offer.observations.get(result.selection.headline)
        incident = None
        if headline is not None:
            incident = await asyncio.to_thread(find_incident, snapshot.aggregate, headline.signal)
        report = self._assemble(parameters, snapshot, offer, result, incident)
        self._observe(report)
        # absolute times have no end, but the quota bounds those that called the model
        is_bounded = report.is_worth_keeping or report.fallback_reason not in NO_CALL
        is_fallback = not (result.is_final and is_bounded)
        return Computed(report.model_dump_json(), is_fallback, partial(self._supersedes, report))

    def _supersedes(self, report: Report, stored: str) -> bool:
        """A rule-based report replaces a stored one whose status is no longer true."""
        parsed = self._parse(stored, "stale")
        return parsed is not None and parsed[0].status != report.status

    async def _select(self, offer: Offer, allow_llm: bool) -> SelectionResult:
        selector = self._selector
        budget = Budget(time.monotonic() + (selector.total_s if selector else 0.0))
        rules = partial(SelectionResult, default_selection(offer), budget)
        if selector is None:
            return rules("no_key")
        if not allow_llm:
            return rules("cache_unavailable", is_final=False)
        if not offer.facts.has_traffic:
            return rules("no_traffic")
        try:
            async with asyncio.timeout(selector.total_s):
                return SelectionResult(await selector.select(offer, budget), budget)
        except SelectionFailed as error:
            return rules(error.reason, is_final=error.is_final)
        except TimeoutError:
            return rules("timeout", is_final=bool(budget.answered))

    def _assemble(
        self,
        parameters: Parameters,
        snapshot: MetricsSnapshot,
        offer: Offer,
        result: SelectionResult,
        incident: Incident | None,
    ) -> Report:
        written = write(offer, result.selection, incident)
        answered = result.budget.answered
        is_ai = result.fallback_reason is None
        facts = offer.facts
        usage = TokenUsage(
            input_tokens=sum(each.input_tokens for each in answered),
            output_tokens=sum(each.output_tokens for each in answered),
        )
        return Report(
            report_id=self._new_id(),
            generated_at=self._today(),
            status=offer.status,
            summary=written.summary,
            incident=models.Incident(onset=incident.onset, end=incident.end) if incident else None,
            figures=written.figures,
            findings=written.findings,
            recommendations=written.recommendations,
            interpretation=written.interpretation,
            source="ai" if is_ai else "rules",
            fallback_reason=result.fallback_reason,
            cache="miss",
            model=(answered[-1].model if answered else self._selector.model) if is_ai and self._selector else None,
            usage=usage if answered else None,
            prompt_version=PROMPT_VERSION,
            metrics_digest=_digest(snapshot),
            windows=Windows(
                name=parameters.window,
                current=facts.current,
                previous=facts.previous,
                drift_reference=facts.reference,
            ),
            limitations=limitations(facts),
        )


def _parse(payload: str, cache: CacheState) -> tuple[Report, bytes] | None:
    """Return the report with its cache state, and its JSON; None if the payload is not a report."""
    try:
        report = Report.model_validate_json(payload).model_copy(update={"cache": cache})
    except ValidationError:
        return None
    return report, report.model_dump_json().encode()


def _digest(snapshot: MetricsSnapshot) -> str:
    drift = snapshot.drift.model_dump(mode="json") if snapshot.drift is not None else None
    return _sha256({"aggregate": snapshot.aggregate.model_dump(mode="json"), "drift": drift})


def _sha256(document: object) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from fake_gemini import GOOD

from analyst.cache.single_flight import Entered, FlightFailed, Lifetime, Limits, SingleFlightCache
from analyst.llm.client import Budget
from analyst.report.models import FallbackReason, Report
from analyst.report.selection import Offer, Selection, parse_selection
from analyst.service import Analyst, Fetch, LLMSelector, MetricsSnapshot, Parameters, SelectionFailed, cache_key
from common.contracts.aggregates import Aggregate, DriftReport

MakeAggregate = Callable[..., Aggregate]

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = Parameters(window="1h")
PAST_HOUR = Parameters(start=NOON - timedelta(hours=2), end=NOON - timedelta(hours=1))
KEPT_S, SECONDS_S = 3900, 5


class OpenStore:
    """Lets everyone lead and keeps nothing but what was committed."""

    def __init__(self) -> None:
        self.committed: list[tuple[str, Lifetime]] = []
        self.answer = Entered("COMPUTE")

    async def enter(self, key: str, token: str, lease_s: float) -> Entered:
        return self.answer

    async def commit(self, key: str, token: str, payload: str, lifetime: Lifetime) -> bool:
        self.committed.append((payload, lifetime))
        return True

    async def fail(self, key: str, token: str, code: str, retry_s: float) -> bool:
        return True

    async def renew(self, key: str, token: str, lease_s: float) -> bool:
        return True

    async def release(self, key: str, token: str) -> None:
        return None


class Model:
    """Gives the answers in turn."""

    def __init__(self, *answers: str | SelectionFailed) -> None:
        self.answers = list(answers)

    async def select(self, offer: Offer, budget: Budget) -> Selection:
        answer = self.answers.pop(0)
        if isinstance(answer, SelectionFailed):
            raise answer
        return parse_selection(answer, offer)


@pytest.fixture
def store() -> OpenStore:
    return OpenStore()


@pytest.fixture
def made() -> list[Report]:
    return []


@pytest.fixture
def create_analyst(store: OpenStore, made: list[Report]) -> Callable[..., Analyst]:
    def create(model: Model | None = None) -> Analyst:
        limits = Limits(ttl_s=300, stale_s=3600, negative_s=5, lease_s=60, compute_s=5, wait_s=5, max_computations=5)
        flights = SingleFlightCache(
            store, limits, now=lambda: 0, uniform=min, new_token=lambda: "t", on_error=lambda _: None
        )
        selector = LLMSelector("some-model", model.select) if model is not None else None
        return Analyst(
            flights,
            selector,
            today=lambda: NOON,
            new_id=lambda: "the-id",
            observe=made.append,
        )

    return create


@pytest.fixture
def fetch(troubled: Aggregate) -> Fetch:
    async def read() -> MetricsSnapshot:
        return MetricsSnapshot(troubled, None)

    return read


# ---- keys


def test_key__is_sha256_over_canonical_json() -> None:
    document = (
        '{"model":"a","parameters":{"end":null,"start":null,"window":"1h"},"prompt_version":"7","schema_version":"2"}'
    )
    assert cache_key(HOUR, "a") == hashlib.sha256(document.encode()).hexdigest()


def test_key__differs_by_window_and_model() -> None:
    keys = {cache_key(Parameters(window=window), model) for window in ("1h", "6h") for model in (None, "a", "b")}
    assert len(keys) == 6


def test_key__is_the_same_for_one_moment_in_two_time_zones() -> None:
    there = timezone(timedelta(hours=2))
    here = Parameters(start=NOON, end=NOON + timedelta(hours=1))
    same = Parameters(start=NOON.astimezone(there), end=(NOON + timedelta(hours=1)).astimezone(there))
    assert cache_key(here, None) == cache_key(same, None)


# ---- who writes


async def test_no_model__means_rules_and_says_so(
    create_analyst: Callable[..., Analyst], fetch: Fetch, store: OpenStore, made: list[Report]
) -> None:
    report = (await create_analyst().report(HOUR, fetch)).report
    assert (report.source, report.fallback_reason, report.model) == ("rules", "no_key", None)
    assert (report.status, report.cache, report.report_id) == ("critical", "miss", "the-id")
    assert report.windows.name == "1h"
    assert store.committed[0][1].serve_s == 300  # what was wanted is kept for its whole time
    assert made == [report]


async def test_rules_about_absolute_times__are_kept_for_seconds_and_a_models_report_for_its_whole_time(
    create_analyst: Callable[..., Analyst], fetch: Fetch, store: OpenStore
) -> None:
    times = Parameters(start=NOON, end=NOON + timedelta(hours=1))
    for model in (None, Model(GOOD)):
        await create_analyst(model).report(times, fetch)
    assert [lifetime.serve_s for _, lifetime in store.committed] == [5, 300]


@pytest.mark.parametrize(("ended", "status"), [(5, "critical"), (6, "degraded")])
async def test_breach_of_now__is_not_one_of_a_window_that_ended_before(
    create_analyst: Callable[..., Analyst], fetch: Fetch, ended: int, status: str
) -> None:
    end = NOON - timedelta(minutes=ended)
    report = (await create_analyst().report(Parameters(start=end - timedelta(hours=1), end=end), fetch)).report
    assert report.status == status
    assert any("its threshold" in finding.title for finding in report.findings) == (status == "critical")
    assert any("left out" in sentence for sentence in report.limitations) == (status == "degraded")


async def test_selection__becomes_the_report(create_analyst: Callable[..., Analyst], fetch: Fetch) -> None:
    report = (await create_analyst(Model(GOOD)).report(HOUR, fetch)).report
    assert (report.source, report.fallback_reason, report.model) == ("ai", None, "some-model")
    assert report.interpretation == "The number of requests is 36,000."
    assert report.status == "critical"  # code decides, whatever the model selects
    assert len(report.recommendations) <= 3


@pytest.mark.parametrize(
    ("failure", "keep_s"),
    [
        (SelectionFailed("blocked", is_final=True), KEPT_S),
        (SelectionFailed("quota"), SECONDS_S),
        (SelectionFailed("upstream"), SECONDS_S),
    ],
)
@pytest.mark.parametrize("parameters", [HOUR, PAST_HOUR])
async def test_fallback__is_kept_for_seconds_unless_another_try_would_end_the_same(
    create_analyst: Callable[..., Analyst],
    fetch: Fetch,
    store: OpenStore,
    parameters: Parameters,
    failure: SelectionFailed,
    keep_s: float,
) -> None:
    await create_analyst(Model(failure)).report(parameters, fetch)
    assert store.committed[0][1].keep_s == keep_s


async def test_report_by_rules_on_absolute_times__is_kept_for_seconds(
    create_analyst: Callable[..., Analyst], fetch: Fetch, store: OpenStore
) -> None:
    await create_analyst().report(PAST_HOUR, fetch)
    assert store.committed[0][1].keep_s == SECONDS_S


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (SelectionFailed("quota"), ("stale", "critical", "ai")),
        (SelectionFailed("blocked", is_final=True), ("miss", "critical", "rules")),
    ],
)
async def test_kept_report__is_served_stale_for_want_of_quota_and_not_for_a_refused_draft(
    create_analyst: Callable[..., Analyst],
    fetch: Fetch,
    store: OpenStore,
    failure: SelectionFailed,
    expected: tuple[str, str, str],
) -> None:
    kept = await create_analyst(Model(GOOD)).report(HOUR, fetch)
    store.answer = Entered("COMPUTE", kept.body.decode(), 301)
    report = (await create_analyst(Model(failure)).report(HOUR, fetch)).report
    assert (report.cache, report.status, report.source) == expected


@pytest.mark.parametrize("reason", ["quota", "upstream", "timeout"])
async def test_kept_report_of_another_status__gives_way_to_what_rules_say_now(
    create_analyst: Callable[..., Analyst],
    fetch: Fetch,
    store: OpenStore,
    make_aggregate: MakeAggregate,
    reason: FallbackReason,
) -> None:
    async def calm() -> MetricsSnapshot:
        return MetricsSnapshot(make_aggregate(), None)

    kept = await create_analyst(Model(GOOD)).report(HOUR, calm)
    assert kept.report.status == "healthy"
    store.answer = Entered("COMPUTE", kept.body.decode(), 301)
    report = (await create_analyst(Model(SelectionFailed(reason))).report(HOUR, fetch)).report
    assert (report.cache, report.status, report.fallback_reason) == ("miss", "critical", reason)
    assert store.committed[-1][1].keep_s == SECONDS_S


async def test_store_that_gives_nothing_but_what_is_no_report__fails_without_a_trace_of_it(
    create_analyst: Callable[..., Analyst], fetch: Fetch, store: OpenStore
) -> None:
    store.answer = Entered("HIT", "{}")
    with pytest.raises(FlightFailed, match="corrupt"):
        await create_analyst().report(HOUR, fetch)


async def test_digest__names_what_was_measured(
    create_analyst: Callable[..., Analyst], make_aggregate: MakeAggregate, make_drift: Callable[..., DriftReport]
) -> None:
    digests = []
    for p95, drift in ((280.0, None), (280.0, None), (281.0, None), (280.0, make_drift()), (280.0, make_drift(n=9))):

        async def read(p95: float = p95, drift: DriftReport | None = drift) -> MetricsSnapshot:
            return MetricsSnapshot(make_aggregate(p95=p95), drift)

        digests.append((await create_analyst().report(HOUR, read)).report.metrics_digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4

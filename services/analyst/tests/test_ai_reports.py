"""AI reports end to end: HTTP, the real SDKs, a fake Gemini on loopback, a real store."""

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from fake_gemini import GOOD, RETRY_DELAY_S, Script, over_grpc, rest
from prometheus_client import generate_latest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from analyst.llm.client import Budget, Completion, Prompt, Retryable
from analyst.llm.factory import open_client
from analyst.llm.quota import Quota
from analyst.llm.retry import RetryingClient
from analyst.llm.selecting import create_select
from analyst.report.models import Report
from analyst.service import LLMSelector
from common.http.context import uuid7
from common.runtime.tasks import cancel_and_wait
from common.service import Service

PATH = "/analyze/performance"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
MALFORMED = GOOD[:20]
UNKNOWN = GOOD.replace("none", "o99")

Client = TestClient[Any, Any]
OpenClient = Callable[..., Awaitable[Client]]


@pytest.fixture
async def script() -> Script:
    return Script(text=GOOD)


@pytest.fixture
async def gemini(script: Script) -> AsyncIterator[dict[str, str]]:
    """The variables that lead to a fake Gemini."""
    async with _variables("genai", script) as variables:
        yield variables


@asynccontextmanager
async def _variables(sdk: str, script: Script) -> AsyncIterator[dict[str, str]]:
    async with rest(script) if sdk == "genai" else over_grpc(script) as endpoint:
        yield {"GEMINI_API_KEY": "secret-key", "GEMINI_ENDPOINT": endpoint, "GEMINI_SDK": sdk}


async def _ask(client: Client, **body: Any) -> ClientResponse:
    return await client.post(PATH, json=body)


async def _report(response: ClientResponse) -> Report:
    assert response.status == 200, await response.text()
    return Report.model_validate_json(await response.read())


@pytest.mark.parametrize("sdk", ["generativeai", "genai"])
async def test_fifty_concurrent_requests__one_upstream_call(sdk: str, script: Script, open_client: OpenClient) -> None:
    script.delay_s = 0.1
    async with _variables(sdk, script) as variables:
        client = await open_client(**variables)
        reports = [await _report(answer) for answer in await asyncio.gather(*(_ask(client) for _ in range(50)))]
        await client.close()
    assert script.calls == 1
    assert len({report.report_id for report in reports}) == 1
    assert (reports[0].source, reports[0].interpretation) == ("ai", "The number of requests is 36,000.")
    assert script.keys == ["secret-key"]


async def test_malformed_answer__is_repaired_once_with_its_errors(
    script: Script, gemini: dict[str, str], open_client: OpenClient
) -> None:
    script.texts = [MALFORMED]
    report = await _report(await _ask(await open_client(**gemini)))
    assert (report.source, report.model, script.calls) == ("ai", "gemini-that-answered", 2)
    assert report.usage is not None
    assert (report.usage.input_tokens, report.usage.output_tokens) == (2000, 100)
    asked = [json.dumps(request) for request in script.requests]
    assert ["malformed" in text for text in asked] == [False, True]


@pytest.mark.parametrize(("text", "calls"), [('{"headline": "cut', 2), ('{"headline": 1}', 2), ("[]", 2), (UNKNOWN, 1)])
async def test_invalid_answer__is_rules(
    script: Script, gemini: dict[str, str], open_client: OpenClient, text: str, calls: int
) -> None:
    script.text = text
    report = await _report(await _ask(await open_client(**gemini)))
    assert (report.source, report.fallback_reason, script.calls) == ("rules", "invalid_answer", calls)


@pytest.mark.parametrize(("step", "calls"), [("truncated", 1), ("blocked", 1), (MALFORMED, 2)])
async def test_window_whose_draft_is_refused__costs_no_more_calls_while_its_fallback_is_kept(
    script: Script,
    gemini: dict[str, str],
    open_client: OpenClient,
    redis_settings: dict[str, Any],
    step: str,
    calls: int,
) -> None:
    script.steps, script.texts = ([], [step, step]) if step == MALFORMED else ([step], [])
    client = await open_client(**gemini)
    assert (await _report(await _ask(client))).source == "rules"
    assert (await _ask(client)).headers["X-Cache"] == "HIT"
    async with Redis(**redis_settings, decode_responses=True) as redis:
        (entry,) = [name async for name in redis.scan_iter("*:entry")]
        assert await redis.pttl(entry) > 3_000_000
    assert script.calls == calls


# ---- the quota


async def test_quota__is_told_where_it_was_asked(
    script: Script, gemini: dict[str, str], open_client: OpenClient
) -> None:
    client = await open_client(**gemini, GEMINI_RATE_LIMIT="3")
    made, kept = await _ask(client), await _ask(client)
    assert made.headers["RateLimit-Policy"] == '"gemini";q=3;w=61'
    assert made.headers["RateLimit"] == '"gemini";r=2'
    assert kept.headers["X-Cache"] == "HIT"
    assert "RateLimit" not in kept.headers


async def test_quota_used_up__is_rules_or_429_for_who_requires_ai(
    script: Script, gemini: dict[str, str], open_client: OpenClient
) -> None:
    client = await open_client(**gemini, GEMINI_RATE_LIMIT="1")
    await _ask(client, window="1h")
    rules = await _ask(client, window="6h")
    assert rules.headers["RateLimit"].startswith('"gemini";r=0;t=')
    assert (await _report(rules)).fallback_reason == "quota"
    for _ in range(2):  # computed here, and from the cache
        refused = await _ask(client, window="24h", require_ai=True)
        assert refused.status == 429
        assert 5 < int(refused.headers["Retry-After"]) <= 61
        assert refused.headers["RateLimit"] == f'"gemini";r=0;t={refused.headers["Retry-After"]}'
        assert (await refused.json(content_type=None))["violated-policies"] == ["gemini"]
    assert script.calls == 1


async def test_no_traffic_here_and_before__is_rules_without_a_call(
    script: Script, gemini: dict[str, str], open_client: OpenClient, metrics: Any, make_aggregate: Callable[..., Any]
) -> None:
    client = await open_client(**gemini)
    metrics.aggregate = make_aggregate(requests=0, previous={"requests": 0})
    silent = await _ask(client, window="1h")
    assert ((await _report(silent)).source, (await _report(silent)).fallback_reason) == ("rules", "no_traffic")
    assert "RateLimit" not in silent.headers
    assert (await _ask(client, window="1h", require_ai=True)).status == 503
    assert script.calls == 0
    metrics.aggregate = make_aggregate(requests=0, previous={"requests": 1})
    assert (await _report(await _ask(client, window="6h"))).fallback_reason != "no_traffic"
    assert script.calls > 0


async def test_provider_says_429__nobody_asks_again_before_its_time(
    script: Script, gemini: dict[str, str], open_client: OpenClient
) -> None:
    script.steps = [429]
    first, second = await open_client(**gemini), await open_client(**gemini)
    assert (await _report(await _ask(first, window="1h"))).fallback_reason == "quota"
    refused = await _ask(second, window="6h", require_ai=True)
    assert refused.status == 429
    assert 0 < int(refused.headers["Retry-After"]) <= RETRY_DELAY_S
    assert script.calls == 1


# ---- a model that cannot be used


@pytest.mark.parametrize(("status", "state"), [(404, "not_found"), (401, "unauthorised"), (400, "invalid")])
async def test_fault_an_operator_must_mend__is_logged_once_and_shows_in_health(
    script: Script,
    gemini: dict[str, str],
    create_analyst_service: Callable[..., Service],
    free_port: Callable[[], int],
    status: int,
    state: str,
) -> None:
    script.steps = [status, status]
    service = create_analyst_service(**gemini)
    async with TestClient(TestServer(service.app, host="127.0.0.1", port=free_port())) as client:
        with capture_logs() as logs:
            for window in ("1h", "6h"):
                assert (await _report(await _ask(client, window=window))).source == "rules"
            named = [entry for entry in logs if entry["log_level"] == "error"]
            assert [(entry["model"], entry["state"]) for entry in named] == [("gemini-2.5-flash-lite", state)]
        health = {"status": "degraded", "model": {"name": "gemini-2.5-flash-lite", "state": state}}
        assert await (await client.get("/analyze/health")).json() == health
        assert (await service.readiness.report())[1]["model"] == "degraded"
        assert (await _report(await _ask(client, window="24h"))).source == "ai"
        assert (await (await client.get("/analyze/health")).json())["status"] == "ok"
    assert script.calls == 3


@pytest.mark.parametrize("sdk", ["generativeai", "genai"])
@pytest.mark.parametrize("step", ["garbage", "html", "details are null"])
async def test_answer_that_is_not_geminis__is_rules_and_shows_in_health(
    sdk: str, step: str, script: Script, open_client: OpenClient
) -> None:
    script.steps = [step, "garbage"]  # which is asked again once, after a second or two, if it looks like a 503
    async with _variables(sdk, script) as variables:
        client = await open_client(**variables)
        report = await _report(await _ask(client))
        health = await (await client.get("/analyze/health")).json()
        await client.close()
    assert (report.source, report.fallback_reason) == ("rules", "upstream")
    assert (health["status"], health["model"]["state"]) == ("degraded", "failing")


async def test_no_key__is_said_once_and_shows_in_health(open_client: OpenClient) -> None:
    with capture_logs() as logs:
        client = await open_client()
        for _ in range(3):
            await _ask(client)
    assert len([entry for entry in logs if "GEMINI_API_KEY" in entry["event"]]) == 1
    health = {"status": "ok", "model": {"name": None, "state": "no_key"}}
    assert await (await client.get("/analyze/health")).json() == health


async def test_model_that_hangs__is_rules_within_the_total_time(
    script: Script, gemini: dict[str, str], open_client: OpenClient
) -> None:
    script.steps = ["hang"]
    client = await open_client(**gemini, ANALYST_AI_TIMEOUT_S="3", ANALYST_ATTEMPT_TIMEOUT_S="3")
    async with asyncio.timeout(30):
        assert (await _report(await _ask(client))).fallback_reason == "timeout"
    assert script.calls == 1


def test_without_a_key__no_sdk_is_imported() -> None:
    code = (
        "import sys; from analyst.app import create_service; from analyst.settings import AnalystSettings;"
        "create_service(AnalystSettings());"
        "sys.exit(len({'google.generativeai', 'google.genai', 'grpc', 'analyst.llm.factory'} & sys.modules.keys()) - 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class ScriptedClient:
    """Gives its answers one after the other, None for a 503; then it is never there. Counts its calls."""

    model = "scripted"

    def __init__(self, answers: Sequence[str | None] = ()) -> None:
        self.answers = list(answers)
        self.calls = 0

    async def complete(self, prompt: Prompt, timeout_s: float) -> Completion:
        self.calls += 1
        answer = self.answers.pop(0) if self.answers else None
        if answer is None:
            raise Retryable("unavailable")
        return Completion(answer, self.model)

    async def close(self) -> None:
        pass


@pytest.fixture
async def quota(redis_settings: dict[str, Any]) -> AsyncIterator[Quota]:
    async with Redis(**redis_settings, decode_responses=True) as redis:
        yield Quota(redis, 10)


def _impatient(model: ScriptedClient, quota: Quota) -> LLMSelector:
    """Tries as often as it may, without waiting in between."""
    client = RetryingClient(
        model,
        quota,
        attempt_timeout_s=1,
        new_token=uuid7,
        uniform=min,
        on_outcome=lambda outcome: None,
        sleep=lambda seconds: asyncio.sleep(0),
    )
    return LLMSelector("scripted", create_select(client))


async def test_upstream_fails__four_attempts_for_all_replicas_together(open_client: OpenClient, quota: Quota) -> None:
    model = ScriptedClient()
    kept = {"ANALYST_NEGATIVE_TTL_S": "60"}  # longer than all the asking takes
    clients = [await open_client(selector=_impatient(model, quota), **kept) for _ in range(2)]
    answers = await asyncio.gather(*(_ask(client) for client in clients for _ in range(25)))
    answers += [await _ask(client) for client in clients]
    reports = [await _report(answer) for answer in answers]
    assert {(report.source, report.fallback_reason) for report in reports} == {("rules", "upstream")}
    assert model.calls == 4


@asynccontextmanager
async def _pauses() -> AsyncIterator[list[tuple[float, float]]]:
    """Return the times in which a busy machine paused this process."""
    found: list[tuple[float, float]] = []

    async def watch() -> None:
        while True:
            before_s = time.monotonic()
            await asyncio.sleep(0.01)
            if (now_s := time.monotonic()) - before_s > 0.1:
                found.append((before_s, now_s))

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        await cancel_and_wait(watching)


async def test_measured_waits__are_1_to_2_then_2_to_4_then_4_to_8_seconds(quota: Quota) -> None:
    """Measured by the wall clock over both real SDKs, so that retries of the SDKs would show."""

    async def calls_s(sdk: Literal["generativeai", "genai"]) -> list[float]:
        script = Script(steps=[503] * 8)
        async with rest(script) if sdk == "genai" else over_grpc(script) as endpoint:
            client = open_client(sdk, "key", "gemini-2.5-flash-lite", endpoint)
            retrying = RetryingClient(
                client,
                quota,
                attempt_timeout_s=5,
                new_token=uuid7,
                uniform=lambda low, high: low + 0.1 * (high - low),
                on_outcome=lambda outcome: None,
            )
            with pytest.raises(Retryable):
                await retrying.complete(Prompt("system", "user", SCHEMA), Budget(time.monotonic() + 60))
            await client.close()
        return script.called_at_s

    async with _pauses() as pauses:
        both = await asyncio.gather(calls_s("generativeai"), calls_s("genai"))
    for called_at_s in both:
        for low, (earlier, later) in zip((1, 2, 4), itertools.pairwise(called_at_s), strict=True):
            stood_s = sum(max(0.0, min(until, later) - max(since, earlier)) for since, until in pauses)
            assert low <= later - earlier <= 2 * low + stood_s, (called_at_s, pauses)
    assert (await quota.look()).remaining == 2


@pytest.mark.parametrize(
    ("answers", "calls", "reason"),
    [
        ([None, None, None, MALFORMED, GOOD], 4, "invalid_answer"),  # nothing is left for the repair
        ([None, None, MALFORMED, GOOD], 4, None),
        ([None, None, MALFORMED, None, GOOD], 4, "upstream"),
        ([MALFORMED, None, GOOD], 2, "upstream"),  # the repair is tried once
        ([MALFORMED, MALFORMED, GOOD], 2, "invalid_answer"),
    ],
)
async def test_answer_and_repair__share_four_attempts_and_their_slots(
    open_client: OpenClient, quota: Quota, answers: list[str | None], calls: int, reason: str | None
) -> None:
    model = ScriptedClient(answers)
    client = await open_client(selector=_impatient(model, quota))
    report = await _report(await _ask(client))
    assert (model.calls, report.fallback_reason) == (calls, reason)
    assert (await quota.look()).remaining == 10 - calls


# ---- what operators see


async def test_counters__tell_calls_quota_refusals_and_what_was_saved(
    script: Script,
    gemini: dict[str, str],
    create_analyst_service: Callable[..., Service],
    free_port: Callable[[], int],
) -> None:
    script.texts = [MALFORMED]
    service = create_analyst_service(**gemini)
    async with TestClient(TestServer(service.app, host="127.0.0.1", port=free_port())) as client:
        await asyncio.gather(*(_ask(client) for _ in range(10)))
        for _ in range(10):
            await _ask(client)
    lines = generate_latest(service.registry).decode().splitlines()
    for line in (
        'sluice_analyst_model_calls_total{outcome="ok"} 2.0',
        "sluice_analyst_model_calls_avoided_total 19.0",
        "sluice_analyst_quota_left 8.0",
    ):
        assert line in lines

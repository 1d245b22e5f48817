"""One contract for both SDKs, against a fake Gemini on loopback: errors translated, nothing retried inside."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fake_gemini import ODD, RETRY_DELAY_S, Script, over_grpc, rest

from analyst.llm.client import Fatal, LLMClient, LLMError, NotSent, Prompt, RateLimited, Retryable
from analyst.llm.genai import GenaiClient
from analyst.llm.generativeai import GenerativeAiClient

SCHEMA = {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]}
PROMPT = Prompt(system="You report.", user="The facts.", schema=SCHEMA)
KEY = "secret-key"

Create = Callable[..., LLMClient]


@dataclass
class Sdk:
    client: LLMClient
    script: Script


def _create(create: Create, endpoint: str) -> LLMClient:
    return create(api_key=KEY, model="gemini-2.5-flash-lite", endpoint=endpoint, max_tokens=500)


@pytest.fixture(params=["generativeai", "genai"])
async def sdk(request: pytest.FixtureRequest) -> AsyncIterator[Sdk]:
    script = Script()
    server: AbstractAsyncContextManager[str]
    create: Create
    server, create = (
        (rest(script), GenaiClient) if request.param == "genai" else (over_grpc(script), GenerativeAiClient)
    )
    async with server as endpoint:
        client = _create(create, endpoint)
        yield Sdk(client, script)
        await client.close()


async def test_a_good_answer__is_its_text(sdk: Sdk) -> None:
    completion = await sdk.client.complete(PROMPT, 60)
    assert completion.text == sdk.script.text
    assert (completion.input_tokens, completion.output_tokens) == (1000, 50)
    assert sdk.script.keys == [KEY]
    sent = str(sdk.script.requests[0])
    assert "The facts." in sent and "You report." in sent and "application/json" in sent and "summary" in sent


async def test_a_socks_proxy_of_the_shell__does_not_stop_genai(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    script = Script()
    async with rest(script) as endpoint:
        client = _create(GenaiClient, endpoint)
        assert (await client.complete(PROMPT, 60)).text == script.text
        await client.close()


async def test_thinking_model__cannot_spend_its_output_on_thoughts() -> None:
    script = Script(thinks=True)
    async with rest(script) as endpoint:
        client = GenaiClient(api_key=KEY, model="gemini-2.5-pro", endpoint=endpoint, max_tokens=500)
        completion = await client.complete(PROMPT, 60)
        await client.close()
    assert (completion.text, completion.model) == (script.text, "gemini-that-answered")


@pytest.mark.parametrize(("model", "samples"), [("gemini-2.5-flash", True), ("gemini-3.5-flash-lite", False)])
async def test_sampling_parameters__are_not_sent_where_they_are_deprecated(model: str, samples: bool) -> None:
    script = Script()
    async with rest(script) as endpoint:
        client = GenaiClient(api_key=KEY, model=model, endpoint=endpoint, max_tokens=500)
        await client.complete(PROMPT, 60)
        await client.close()
    assert ("temperature" in script.requests[0]["generationConfig"]) == samples


@pytest.mark.parametrize("status", [500, 503])
async def test_a_server_error__is_retryable_and_sent_once(sdk: Sdk, status: int) -> None:
    sdk.script.steps = [status]
    with pytest.raises(Retryable) as caught:
        await sdk.client.complete(PROMPT, 60)
    assert not isinstance(caught.value, NotSent)
    assert sdk.script.calls == 1


async def test_a_hanging_server__is_retryable_within_the_time_limit(sdk: Sdk) -> None:
    sdk.script.steps = ["hang"]
    async with asyncio.timeout(30):
        with pytest.raises(Retryable, match="timeout"):
            await sdk.client.complete(PROMPT, 3)  # it has been sent by then, whatever the machine does
    assert sdk.script.calls == 1


@pytest.mark.parametrize("status", [200, 500])
async def test_an_answer_without_an_end__is_cut_off(status: int) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=status, headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" " * (1 << 16))

    app = web.Application()
    app.router.add_post("/{version}/models/{model}", answer)
    async with TestServer(app) as server:
        client = _create(GenaiClient, str(server.make_url("")))
        with pytest.raises(LLMError):
            await client.complete(PROMPT, 600)
        await client.close()


@pytest.mark.parametrize("status", [307, 308])
async def test_a_redirection__takes_neither_the_key_nor_the_facts_elsewhere(status: int) -> None:
    script = Script()
    async with rest(script) as elsewhere:

        async def redirect(request: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": f"{elsewhere}{request.rel_url}"})

        app = web.Application()
        app.router.add_post("/{version}/models/{model}", redirect)
        async with TestServer(app) as server:
            client = _create(GenaiClient, str(server.make_url("")))
            with pytest.raises(Fatal):
                await client.complete(PROMPT, 60)
            await client.close()
    assert not script.received


async def test_429__says_when_to_come_back(sdk: Sdk) -> None:
    sdk.script.steps = [429]
    with pytest.raises(RateLimited) as caught:
        await sdk.client.complete(PROMPT, 60)
    assert caught.value.retry_after_s == RETRY_DELAY_S
    assert sdk.script.calls == 1


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (400, "invalid"),
        (401, "unauthorised"),
        (403, "unauthorised"),
        (404, "not_found"),
        ("blocked", "blocked"),
        ("truncated", "truncated"),
    ],
)
async def test_what_would_fail_again__is_fatal(sdk: Sdk, step: Any, reason: str) -> None:
    sdk.script.steps = [step]
    with pytest.raises(Fatal) as caught:
        await sdk.client.complete(PROMPT, 60)
    assert caught.value.reason == reason
    assert sdk.script.calls == 1


@pytest.mark.parametrize("step", ODD)
async def test_an_answer_that_is_not_geminis__is_a_named_error(sdk: Sdk, step: str) -> None:
    sdk.script.steps = [step]
    with pytest.raises(LLMError) as caught:
        await sdk.client.complete(PROMPT, 60)
    assert not isinstance(caught.value, NotSent)
    assert getattr(caught.value, "retry_after_s", None) in (None, 60.0)
    assert sdk.script.calls == 1


async def test_a_connection_that_breaks__is_retryable_and_not_sent_again() -> None:
    script = Script(steps=["drop"])
    async with rest(script) as endpoint:
        client = _create(GenaiClient, endpoint)
        with pytest.raises(Retryable) as caught:
            await client.complete(PROMPT, 60)
        await client.close()
    assert not isinstance(caught.value, NotSent)
    assert script.calls == 1


@pytest.mark.parametrize("create", [GenaiClient, GenerativeAiClient])
@pytest.mark.parametrize("host", ["127.0.0.1", "gemini.invalid"])  # nobody listens; no such name
async def test_nobody_there__nothing_was_sent(create: Create, host: str, free_port: Callable[[], int]) -> None:
    client = _create(create, f"http://{host}:{free_port()}")
    with pytest.raises(NotSent):
        await client.complete(PROMPT, 60)
    await client.close()


@pytest.mark.parametrize("create", [GenaiClient, GenerativeAiClient])
@pytest.mark.parametrize("key", ["two\nlines", "clé", "nul\0"])
async def test_a_key_that_no_header_carries__is_a_named_error(
    create: Create, key: str, free_port: Callable[[], int]
) -> None:
    client = create(api_key=key, model="m", endpoint=f"http://127.0.0.1:{free_port()}", max_tokens=500)
    with pytest.raises(LLMError):
        await client.complete(PROMPT, 60)
    await client.close()


async def test_a_cancelled_call__ends_at_once(sdk: Sdk) -> None:
    sdk.script.steps = ["hang"]
    task = asyncio.create_task(sdk.client.complete(PROMPT, 60))
    async with asyncio.timeout(30):
        while not sdk.script.calls:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

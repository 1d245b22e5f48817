"""A Gemini on loopback, over REST and gRPC, that follows a script."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import google.ai.generativelanguage as language
import grpc
from aiohttp import web
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

RETRY_DELAY_S = 7
_ODD_RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5m"}
ODD: dict[str, tuple[int, str]] = {
    "garbage": (200, "\0\1\2"),
    "html": (200, "<html><body>Sign in to the network</body></html>"),
    "list": (200, "[1]"),
    "null": (200, "null"),
    "odd candidates": (200, '{"candidates": "none"}'),
    "error is a string": (502, '{"error": "bad gateway"}'),
    "error is a list": (503, "[[]]"),
    "error is null": (503, "null"),
    "details are null": (503, '{"error": {"code": 503, "details": null}}'),
    "details are text": (503, '{"error": {"code": 503, "details": ["busy"]}}'),
    "odd delay": (429, json.dumps({"error": {"code": 429, "details": [_ODD_RETRY]}})),
    "html error": (500, "<html><body>Oops</body></html>"),
}
"""Answers that are not Gemini's: status and body over REST, and the same bytes over gRPC."""
STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
Step = int | str

GOOD = json.dumps(
    {"headline": "none", "findings": [], "actions": [], "interpretation": "The number of requests is {f1}."}
)
"""A valid answer to every prompt, because the first fact is always the number of requests."""
THOUGHTS_TOKENS = 100_000
"""Tokens that a model spends on thoughts unless the request limits them."""


@dataclass
class Script:
    """`steps` are HTTP statuses, "hang", "drop", "truncated", "blocked", or keys of ODD. Then come `texts`, and then
    always `text`. A `thinks` model spends its output budget on thoughts unless the request limits them.
    """

    text: str = GOOD
    texts: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    calls: int = 0
    called_at_s: list[float] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    received: list[str] = field(default_factory=list)  # all that came: address, headers or metadata, and body
    delay_s: float = 0.0
    thinks: bool = False

    def next(self) -> Step:
        self.calls += 1
        self.called_at_s.append(time.monotonic())
        return self.steps.pop(0) if self.steps else "ok"

    def next_text(self) -> str:
        return self.texts.pop(0) if self.texts else self.text


def _answer(step: Step, text: str, budget: int = 1, limit: int = 1) -> dict[str, Any]:
    if budget > limit:
        step = "truncated"
    if step == "blocked":
        return {"promptFeedback": {"blockReason": "SAFETY"}}
    finish = "MAX_TOKENS" if step == "truncated" else "STOP"
    shown = text[: len(text) // 2] if step == "truncated" else text
    content = {"role": "model", "parts": [{"text": shown}]}
    return {
        "candidates": [{"content": content, "finishReason": finish, "index": 0}],
        "usageMetadata": {"promptTokenCount": 1000, "candidatesTokenCount": 50, "totalTokenCount": 1050},
        "modelVersion": "gemini-that-answered",
    }


def _error(status: int) -> dict[str, Any]:
    retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{RETRY_DELAY_S}s"}
    details = [retry] if status == 429 else []
    return {"error": {"code": status, "message": "scripted", "status": STATUS[status], "details": details}}


@asynccontextmanager
async def rest(script: Script) -> AsyncIterator[str]:
    """The URL of a REST Gemini that follows `script`."""
    released = asyncio.Event()

    async def generate(request: web.Request) -> web.Response:
        step = script.next()
        script.keys.append(request.headers.get("x-goog-api-key"))
        script.requests.append(await request.json())
        script.received.append(f"{request.rel_url} {dict(request.headers)} {await request.text()}")
        if script.delay_s:
            await asyncio.sleep(script.delay_s)
        if step == "hang":
            await released.wait()
        if step == "drop" and request.transport is not None:
            request.transport.close()
        if isinstance(step, int):
            return web.json_response(_error(step), status=step)
        if step in ODD:
            status, body = ODD[step]
            kind = "text/html" if body.startswith("<") else "application/json"
            return web.Response(status=status, text=body, content_type=kind)
        config = script.requests[-1].get("generationConfig", {})
        thoughts = config.get("thinkingConfig", {}).get("thinking_budget", THOUGHTS_TOKENS) if script.thinks else 0
        return web.json_response(_answer(step, script.next_text(), thoughts, config.get("maxOutputTokens", 1)))

    app = web.Application()
    app.router.add_post("/{version}/models/{model}", generate)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        released.set()
        await runner.cleanup()


@asynccontextmanager
async def over_grpc(script: Script) -> AsyncIterator[str]:
    """The plain-text address of a gRPC Gemini that follows `script`; it cannot drop a connection half-way."""
    released = asyncio.Event()

    async def generate(request: Any, context: Any) -> Any:
        step = script.next()
        script.keys.append(dict(context.invocation_metadata()).get("x-goog-api-key"))
        script.requests.append(json.loads(type(request).to_json(request)))
        script.received.append(f"{context.invocation_metadata()} {request}")
        if script.delay_s:
            await asyncio.sleep(script.delay_s)
        if step == "hang":
            await released.wait()
        if isinstance(step, int):
            await context.abort_with_status(rpc_status.to_status(_status(step)))
        if step in ODD:
            status, body = ODD[step]
            if status != 200:
                await context.abort(grpc.StatusCode.UNAVAILABLE, body, (("grpc-status-details-bin", body.encode()),))
            return body.encode()
        return language.GenerateContentResponse.from_json(json.dumps(_answer(step, script.next_text())))

    handler = grpc.unary_unary_rpc_method_handler(
        generate,
        request_deserializer=language.GenerateContentRequest.deserialize,
        response_serializer=lambda answer: answer if isinstance(answer, bytes) else _serialize(answer),
    )
    server = grpc.aio.server()
    service = "google.ai.generativelanguage.v1beta.GenerativeService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"GenerateContent": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        released.set()
        await server.stop(None)


_serialize = language.GenerateContentResponse.serialize


def _status(step: int) -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.Code.Value(STATUS[step]), message="scripted")
    if step == 429:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.seconds = RETRY_DELAY_S
        status.details.add().Pack(retry)
    return status

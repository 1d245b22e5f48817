"""Calls from service to service: the deadline travels and binds, and whatever breaks is a named error."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import BaseModel

from common.http.client import (
    UpstreamError,
    UpstreamMalformed,
    UpstreamRefused,
    call_json,
    create_session,
)
from common.http.context import RequestContext


class Question(BaseModel):
    text: str


class Answer(BaseModel):
    echoed: str
    headers: dict[str, str]


async def echo(request: web.Request) -> web.Response:
    echoed = (await request.read()).decode()
    return web.json_response({"echoed": echoed, "headers": dict(request.headers)})


async def hang(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError("never")


async def refuse(request: web.Request) -> web.Response:
    return web.json_response({}, status=int(request.query["status"]))


async def talk_nonsense(request: web.Request) -> web.Response:
    return web.Response(body={"html": b"<html>", "other": b"{}", "binary": b"\xff"}[request.query["what"]])


async def redirect(_request: web.Request) -> web.Response:
    raise web.HTTPFound("/echo")


async def hang_up(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"echoed":')
    assert request.transport is not None
    request.transport.close()
    return response


async def never_end(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(bytes(1 << 16))


@pytest.fixture
async def url() -> AsyncIterator[Callable[[str], str]]:
    app = web.Application()
    for handler in (echo, hang, refuse, talk_nonsense, redirect, hang_up, half, never_end):
        app.router.add_route("*", f"/{handler.__name__}", handler)
    async with TestServer(app) as server:
        yield lambda path: str(server.make_url("/")) + path


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with create_session(connect_timeout_s=60) as made:
        yield made


def context(seconds: float) -> RequestContext:
    return RequestContext("r-1", None, f"00-{'a' * 32}-{'b' * 16}-01", time.monotonic() + seconds)


async def call(session: aiohttp.ClientSession, url: str, seconds: float = 60.0) -> Answer:
    return await call_json(session, "POST", url, answer=Answer, context=context(seconds), body=Question(text="hi"))


async def test_call__passes_on_id_trace_and_the_time_that_is_left(
    session: aiohttp.ClientSession, url: Callable[[str], str]
) -> None:
    answer = await call(session, url("echo"), seconds=60.0)
    assert answer.echoed == '{"text":"hi"}'
    assert (
        answer.headers.items()
        >= {
            "X-Request-ID": "r-1",
            "traceparent": f"00-{'a' * 32}-{'b' * 16}-01",
            "Content-Type": "application/json",
        }.items()
    )
    assert 30_000 < int(answer.headers["X-Request-Timeout-Ms"]) <= 60_000


async def test_no_answer_before_the_deadline__is_a_timeout(
    session: aiohttp.ClientSession, url: Callable[[str], str]
) -> None:
    async with asyncio.timeout(20):
        for seconds in (0.1, -1.0):
            with pytest.raises(UpstreamError, match="no response before the deadline"):
                await call(session, url("hang"), seconds=seconds)


async def test_answer_without_an_end__is_cut_off_long_before_the_deadline(
    session: aiohttp.ClientSession, url: Callable[[str], str]
) -> None:
    with pytest.raises(UpstreamMalformed, match="too long"):
        await call(session, url("never_end"), seconds=600)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
async def test_error_status__is_a_refusal_with_its_status(
    session: aiohttp.ClientSession, url: Callable[[str], str], status: int
) -> None:
    with pytest.raises(UpstreamRefused) as raised:
        await call(session, url(f"refuse?status={status}"))
    assert raised.value.status == status


@pytest.mark.parametrize(
    "path",
    ["talk_nonsense?what=html", "talk_nonsense?what=other", "talk_nonsense?what=binary", "redirect", "hang_up", "half"],
)
async def test_broken_answer__is_an_upstream_error_without_its_text(
    session: aiohttp.ClientSession, url: Callable[[str], str], path: str
) -> None:
    with pytest.raises(UpstreamError) as raised:
        await call(session, url(path))
    assert not isinstance(raised.value, UpstreamRefused)
    assert "html" not in str(raised.value)


@pytest.mark.parametrize("address", ["http://127.0.0.1:{port}/", "http://no-such-host.invalid/", "http://["])
async def test_unreachable_server__is_an_upstream_error(
    session: aiohttp.ClientSession, free_port: Callable[[], int], address: str
) -> None:
    with pytest.raises(UpstreamError):
        await call(session, address.format(port=free_port()))

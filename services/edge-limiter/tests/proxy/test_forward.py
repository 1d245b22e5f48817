import asyncio
import gzip
import io
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]


async def echo(request: web.Request) -> web.Response:
    """What arrived, as JSON."""
    body = await request.read()
    return web.json_response(
        {"line": f"{request.method} {request.raw_path}", "headers": list(request.headers.items()), "size": len(body)}
    )


async def test_encoded_answer__passes_untouched(start_edge: StartEdge, start_upstream: StartUpstream) -> None:
    packed = gzip.compress(b"a" * 1_000)

    async def zipped(_request: web.Request) -> web.Response:
        response = web.Response(body=packed, headers={"Content-Encoding": "gzip", "X-Hop": "1", "Connection": "X-Hop"})
        response.headers.add("Set-Cookie", "a=1")
        response.headers.add("Set-Cookie", "b=2")
        return response

    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(zipped))
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        async with http.get(f"http://127.0.0.1:{edge.port}/models") as response:
            assert (await response.read(), response.headers["Content-Encoding"]) == (packed, "gzip")
            assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
            assert "X-Hop" not in response.headers


@pytest.mark.parametrize("coding", ["zstd", "br", "x-gzip", "gzip, gzip", "utf-8"])
async def test_body_in_a_coding_that_no_service_unpacks__is_415(
    start_edge: StartEdge, start_upstream: StartUpstream, coding: str
) -> None:
    """aiohttp would answer `zstd` in plain text and treat `x-gzip` as plain bytes."""
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo))
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    async with edge.http.post("/predict", data=b'{"text": "a"}', headers=headers) as response:
        assert (response.status, response.content_type) == (415, "application/problem+json")
        assert "can only be gzip" in (await response.json())["detail"]
        assert "X-RateLimit-Remaining" not in response.headers, "it must cost nothing"
        assert response.headers["Accept-Encoding"] == "gzip"
    async with edge.http.post("/predict/batch", data=b'{"texts": ["a"]}', headers=headers) as response:
        assert (response.status, response.headers["Accept-Encoding"]) == (415, "gzip")
    async with edge.http.get("/models", headers=headers) as response:  # a service reads the header without a body, too
        assert response.status == 415


async def test_deflate__is_415_also_where_it_breaks_off(start_edge: StartEdge, start_upstream: StartUpstream) -> None:
    """A service waited for the rest until the deadline: a place of its upstream was held, and the 504 was ours."""
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo))
    headers = {"Content-Encoding": "deflate", "X-Request-Timeout-Ms": "1000"}
    for body in (zlib.compress(b'{"text": "a"}'), zlib.compress(b'{"text": "a"}')[:-6]):
        async with edge.http.post("/predict", data=body, headers=headers) as response:
            assert response.status == 415


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"x" * 99, mtime=0)),
        ("GZIP", gzip.compress(b"x" * 99, mtime=0)),
        ("identity", b"x" * 99),
    ],
)
async def test_body_in_a_coding_that_services_unpack__passes(
    start_edge: StartEdge, start_upstream: StartUpstream, coding: str, body: bytes
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo))
    async with edge.http.post("/predict", data=body, headers={"Content-Encoding": coding}) as response:
        assert (await response.json())["size"] == 99


@pytest.mark.parametrize("status", [204, 304])
async def test_answer_without_a_body__passes(start_edge: StartEdge, start_upstream: StartUpstream, status: int) -> None:
    async def empty(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"ETag": '"1"'})

    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_upstream(empty))
    for _ in range(2):
        async with edge.http.get("/metrics/thresholds") as response:
            assert (response.status, await response.read(), response.headers["ETag"]) == (status, b"", '"1"')


async def test_head__tells_the_length_and_sends_nothing(start_edge: StartEdge, start_upstream: StartUpstream) -> None:
    async def page(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * 1_234)

    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_upstream(page))
    async with edge.http.head("/dashboard") as response:
        assert (response.status, response.headers["Content-Length"], await response.read()) == (200, "1234", b"")


async def test_head_of_an_answer_in_chunks__tells_no_length(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    async def page(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * 1_234)
        return response

    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_upstream(page))
    for _ in range(2):
        async with edge.http.head("/dashboard") as response:
            assert response.status == 200
            assert "Content-Length" not in response.headers


@pytest.mark.parametrize("size", [0, 1, 64 << 10, (64 << 10) + 1, 900_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_body_of_any_size__arrives_whole_both_ways(
    start_edge: StartEdge, start_upstream: StartUpstream, size: int, chunked: bool
) -> None:
    async def mirror(request: web.Request) -> web.Response:
        assert not ("Content-Length" in request.headers and "Transfer-Encoding" in request.headers)
        return web.Response(body=await request.read())

    async def pieces() -> Any:
        for start in range(0, size, 10_000):
            yield body[start : start + 10_000]

    body = bytes(i % 251 for i in range(size))
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(mirror))
    async with edge.http.post("/predict", data=pieces() if chunked else body) as response:
        assert (response.status, await response.read()) == (200, body)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
async def test_body_past_the_size_limit__is_refused(
    start_edge: StartEdge, start_upstream: StartUpstream, path: str, chunked: bool
) -> None:
    finished: list[int] = []

    async def count(request: web.Request) -> web.Response:
        finished.append(len(await request.read()))
        return web.Response()

    async def pieces() -> Any:
        for _ in range(3):
            yield b"x" * 500_000

    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(count))
    async with edge.http.post(path, data=pieces() if chunked else io.BytesIO(b"x" * 1_500_000)) as response:
        assert response.status == 413
        assert response.content_type == "application/problem+json"
    assert finished == []


async def test_slow_upload__holds_no_upstream_connection(start_edge: StartEdge, start_upstream: StartUpstream) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo), EDGE_UPSTREAM_LIMIT="1")
    begun, finish = asyncio.Event(), asyncio.Event()

    async def pieces() -> Any:
        yield b"x"
        begun.set()
        await finish.wait()
        yield b"y"

    slow = asyncio.create_task(edge.post(json=None, data=pieces()))
    await begun.wait()
    assert await edge.post() == 200
    finish.set()
    assert await slow == 200


async def test_killed_upstream__is_502_or_503_at_once_and_the_others_answer(
    start_edge: StartEdge, start_upstream: StartUpstream, start_raw_upstream: StartUpstream
) -> None:
    entered, killed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        entered.set()
        await killed.wait()
        writer.transport.abort()

    edge = await start_edge(
        EDGE_UPSTREAM_INFERENCE=await start_raw_upstream(silent), EDGE_UPSTREAM_METRICS=await start_upstream(echo)
    )
    waiting = asyncio.create_task(edge.post())
    await entered.wait()
    killed.set()
    async with asyncio.timeout(5):
        assert await waiting in (502, 503)
    async with edge.http.get("/metrics/count") as response:
        assert response.status == 200


async def test_server_sent_events__come_one_by_one(start_edge: StartEdge, start_upstream: StartUpstream) -> None:
    wanted: asyncio.Queue[bytes] = asyncio.Queue()

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        while (event := await wanted.get()) != b"":
            await response.write(event)
        return response

    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_upstream(events))
    async with edge.http.get("/metrics/stream") as response:
        assert response.headers["X-Request-ID"]
        for event in (b"data: 1\n\n", b"data: 2\n\n"):
            wanted.put_nowait(event)
            async with asyncio.timeout(5):
                assert await response.content.readexactly(len(event)) == event
        wanted.put_nowait(b"")
        assert await response.read() == b""


async def test_client_that_leaves__ends_the_call_upstream(start_edge: StartEdge, start_upstream: StartUpstream) -> None:
    entered, gone = asyncio.Event(), asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()
        return web.Response()

    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(slow))
    call = asyncio.create_task(edge.post())
    await entered.wait()
    call.cancel()
    async with asyncio.timeout(5):
        await gone.wait()


async def test_upstream_that_breaks_off_in_the_middle__breaks_the_answer_off(
    start_edge: StartEdge, start_raw_upstream: StartUpstream
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        await writer.drain()

    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_raw_upstream(serve))
    with pytest.raises(aiohttp.ClientError):
        async with edge.http.get("/metrics/count") as response:
            await response.read()


async def test_refused_client_that_waits_for_100_continue__gets_429_instead(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo), EDGE_RATE_LIMIT="1")

    async def expectant() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
        writer.write(b"POST /predict HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        first = await reader.readline()
        if first.startswith(b"HTTP/1.1 100"):
            writer.write(b"{}")
            await reader.readline()
            first += await reader.readline()
        writer.close()
        await writer.wait_closed()
        return first

    assert await expectant() == b"HTTP/1.1 100 Continue\r\nHTTP/1.1 200 OK\r\n"
    assert await expectant() == b"HTTP/1.1 429 Too Many Requests\r\n"


@pytest.mark.parametrize("path", [b"/predict/batch", b"/predict"], ids=["counted here", "passed on"])
async def test_more_large_bodies_than_there_is_memory__are_told_to_come_again(
    path: bytes, start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(
        EDGE_UPSTREAM_INFERENCE=await start_upstream(echo), EDGE_BODY_MEMORY_BYTES=str(2 << 20), EDGE_RATE_LIMIT="100"
    )
    head = b"POST " + path + b" HTTP/1.1\r\nHost: edge\r\nContent-Length: 900000\r\n\r\n"
    async with asyncio.timeout(30):
        first = await asyncio.open_connection("127.0.0.1", edge.port)
        first[1].write(head + b"[" * 600_000)
        while edge.sample("sluice_edge_body_bytes") < 600_000:
            await asyncio.sleep(0)
        second = await asyncio.open_connection("127.0.0.1", edge.port)
        second[1].write(head + b"[" * 600_000)
        answer = await second[0].read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 1\r\n" in answer
        assert await edge.post() == 200, "a body that is whole needs no room"
        first[1].write(b"[" * 300_000)
        assert (await first[0].readuntil(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
        for _, writer in (first, second):
            writer.close()
        while edge.sample("sluice_edge_body_bytes"):
            await asyncio.sleep(0)


@pytest.mark.parametrize("is_late", [False, True])
async def test_event_stream__ends_whole_when_the_edge_stops(
    start_edge: StartEdge, start_upstream: StartUpstream, is_late: bool
) -> None:
    asked, may_begin = asyncio.Event(), asyncio.Event()

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        asked.set()
        await may_begin.wait()
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await asyncio.Event().wait()
        return response

    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_upstream(stream))
    async with asyncio.timeout(10):
        following = asyncio.create_task(edge.http.get("/metrics/stream"))
        await asked.wait()
        server = edge.runner.server
        if is_late:
            server.start_draining()
        may_begin.set()
        response = await following
        assert await response.content.readline() == b"data: 1\n"
        if not is_late:
            server.start_draining()
        assert await response.read() == b"\n"
        await server.shutdown(None)
        assert server.in_flight == 0


async def test_long_answer_that_is_no_event_stream__is_not_cut_short(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    async def export(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        await response.write(b"1\n")
        has_begun.set()
        await may_end.wait()
        await response.write(b"2\n")
        return response

    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_upstream(export))
    async with edge.http.get("/metrics/count") as response:
        await has_begun.wait()
        server = edge.runner.server
        server.start_draining()
        server.sweep(asyncio.get_running_loop().time())
        may_end.set()
        assert await response.read() == b"1\n2\n"

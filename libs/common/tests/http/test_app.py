"""The door over real HTTP: each answer carries its id, each error is a problem document, each bad request one line."""

import asyncio
import gzip
import io
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from structlog.testing import LogCapture

from common.http.app import AppConfig, ErrorTable, context, create_app, record_request
from common.http.context import RequestContext
from common.http.problems import Problem
from common.runtime.metrics import HttpMetrics

SECRET = "hunter2-wrong"

Client = TestClient[web.Request, web.Application]


class StoreDown(Exception):
    pass


class StoreSlow(StoreDown):
    pass


async def echo(request: web.Request) -> web.Response:
    return web.json_response({"id": context(request).request_id, "bytes": len(await request.read())})


async def crash(_request: web.Request) -> web.Response:
    raise RuntimeError(SECRET)


async def down(_request: web.Request) -> web.Response:
    raise StoreDown(SECRET)


async def slow(_request: web.Request) -> web.Response:
    raise type("StoreVerySlow", (StoreSlow,), {})(SECRET)


async def refused(request: web.Request) -> web.Response:
    raise Problem(int(request.query["status"]), "Too many.", headers={"Retry-After": "3"})


async def moved(_request: web.Request) -> web.Response:
    raise web.HTTPSeeOther("/echo")


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"half")
    return response


async def broken_stream(request: web.Request) -> web.StreamResponse:
    await stream(request)
    raise RuntimeError(SECRET)


async def refused_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    raise Problem(502, "Too late to say so.")


class Waiting:
    """A handler that waits until its client has left."""

    def __init__(self) -> None:
        self.entered, self.left = asyncio.Event(), asyncio.Event()

    async def answer(self, _request: web.Request) -> web.Response:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        raise AssertionError("never answered")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
async def client(registry: CollectorRegistry, waiting: Waiting) -> AsyncIterator[Client]:
    errors: ErrorTable = {
        StoreDown: lambda _error: Problem(502, "The store broke."),
        StoreSlow: lambda _error: Problem(504, "The store is slow."),
    }
    app = create_app(AppConfig(HttpMetrics(registry), errors, max_body_bytes=1000))
    app.router.add_post("/echo", echo)
    app.router.add_get("/echo", echo)
    app.router.add_get("/items/{id}", echo)
    for handler in (crash, down, slow, refused, moved, stream, broken_stream, refused_stream):
        app.router.add_get(f"/{handler.__name__}", handler)
    app.router.add_get("/waiting", waiting.answer)
    async with TestClient(TestServer(app)) as made:
        yield made


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """Everything logged from info up, as it would be written."""
    capture = LogCapture()
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, capture],
        wrapper_class=structlog.make_filtering_bound_logger(20),
    )
    yield capture.entries
    structlog.reset_defaults()


async def problem(response: aiohttp.ClientResponse) -> dict[str, Any]:
    text = await response.text()
    assert response.content_type == "application/problem+json"
    assert SECRET not in text + str(response.headers)
    body: dict[str, Any] = json.loads(text)
    assert body["status"] == response.status
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body


async def test_request_id__comes_back_and_reaches_the_handler(client: Client) -> None:
    async with client.get("/echo", headers={"X-Request-ID": "mine-1"}) as response:
        assert response.headers["X-Request-ID"] == (await response.json())["id"] == "mine-1"


@pytest.mark.parametrize("given", ["x" * 129, "a b", '"><script>'])
async def test_malformed_request_id__is_replaced(client: Client, given: str) -> None:
    async with client.get("/echo", headers={"X-Request-ID": given}) as response:
        assert len(response.headers["X-Request-ID"]) == 36


@pytest.mark.parametrize("path", ["/stream", "/moved", "/crash", "/nowhere", "/refused?status=429"])
async def test_every_kind_of_answer__carries_the_request_id(client: Client, path: str) -> None:
    async with client.get(path, headers={"X-Request-ID": "mine-1"}, allow_redirects=False) as response:
        assert response.headers["X-Request-ID"] == "mine-1"


@pytest.mark.parametrize("path", ["/echo", "/nowhere"])
async def test_page_whose_name_was_made_to_lead_here__reads_nothing_of_a_local_service(
    path: str, lines: list[Any]
) -> None:
    app = create_app(AppConfig(HttpMetrics(CollectorRegistry()), is_local=True))
    app.router.add_get("/echo", echo)
    async with TestClient(TestServer(app)) as client:
        for host in ("rebound.example:8002", ""):
            async with client.get(path, headers={"Host": host}) as response:
                assert (await problem(response))["status"] == 403
        for host in ("localhost:8002", "127.0.0.1", "[::1]:8002"):
            async with client.get(path, headers={"Host": host}) as response:
                assert response.status == (200 if path == "/echo" else 404)
    assert [line["status"] for line in lines[:2]] == [403, 403]


async def test_unknown_route__is_404(client: Client, lines: list[Any]) -> None:
    async with client.get(f"/{SECRET}") as response:
        assert (await problem(response))["title"] == "Not Found"
    assert [(line["event"], line["status"], line["route"]) for line in lines] == [
        ("request refused", 404, "unmatched"),
    ]


async def test_wrong_method__is_405_with_allow(client: Client, lines: list[Any]) -> None:
    async with client.delete("/echo") as response:
        assert (await problem(response))["status"] == 405
        assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}
    assert len(lines) == 1


@pytest.mark.parametrize("size", [1001, 2_000_000])
@pytest.mark.parametrize("chunked", [False, True])
async def test_large_body__is_413(client: Client, lines: list[Any], size: int, chunked: bool) -> None:
    async with client.post("/echo", data=io.BytesIO(b"x" * size), chunked=chunked or None) as response:
        assert (await problem(response))["status"] == 413
    assert len(lines) == 1


async def test_answer_before_the_body_is_there__says_that_it_is_the_last(client: Client) -> None:
    """Otherwise the client would send its next request on a connection that is being closed."""
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"\r\nConnection: close\r\n" in head


async def test_error_after_the_body_has_come__keeps_the_connection(client: Client) -> None:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(client.host, client.port)
        for path, status in (("/nowhere", b"404"), ("/crash", b"405"), ("/echo", b"200")):
            writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.split()[1] == status
            assert b"\r\nConnection:" not in head
            await reader.readexactly(int(head.split(b"Content-Length: ")[1].split()[0]))
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff not compressed " + SECRET.encode(),
        gzip.compress(bytes(range(256)) * 3)[:-4] + b"wrong length, then more",
    ],
    ids=["from the start", "half-way"],
)
async def test_body_that_is_not_gzip__is_400_and_closes_the_connection(
    client: Client, lines: list[Any], caplog: pytest.LogCaptureFixture, body: bytes
) -> None:
    async with client.post("/echo", data=body, headers={"Content-Encoding": "gzip"}) as response:
        assert (await problem(response))["status"] == 400
        assert response.headers["Connection"] == "close"
    assert len(lines) == 1
    assert [record for record in caplog.records if record.name == "aiohttp.server"] == []


@pytest.mark.parametrize("coding", ["deflate", "x-gzip", "gzip, gzip"])
async def test_body_in_a_coding_that_is_not_unpacked_well__is_415_and_not_waited_for(
    client: Client, coding: str
) -> None:
    """aiohttp does not report a truncated `deflate` body, so reading it waits until the deadline."""
    body = zlib.compress(SECRET.encode())[:-6]
    reader, writer = await asyncio.open_connection(client.host, client.port)
    head = f"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Encoding: {coding}\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 415")
    assert b"Accept-Encoding: gzip\r\n" in answer
    writer.write(body)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.parametrize("coding", ["GZIP", "identity"])
async def test_body_in_a_coding_that_is_unpacked__is_read(client: Client, coding: str) -> None:
    body = gzip.compress(SECRET.encode()) if coding == "GZIP" else SECRET.encode()
    async with client.post("/echo", data=body, headers={"Content-Encoding": coding}) as response:
        assert (await response.json())["bytes"] == len(SECRET)


async def test_crash__is_500_without_its_text_and_one_line_with_it(client: Client, lines: list[Any]) -> None:
    async with client.get("/crash", headers={"X-Request-ID": "mine-1"}) as response:
        assert (await problem(response))["status"] == 500
    (line,) = lines
    assert (line["event"], line["log_level"], line["request_id"]) == ("request crashed", "error", "mine-1")
    assert isinstance(line["exc_info"], RuntimeError)


@pytest.mark.parametrize(("path", "status"), [("/down", 502), ("/slow", 504)])
async def test_named_error__becomes_the_problem_of_its_most_derived_class(
    client: Client, lines: list[Any], path: str, status: int
) -> None:
    async with client.get(path) as response:
        assert (await problem(response))["status"] == status
    (line,) = lines
    assert (line["log_level"], line["route"], line["status"]) == ("warning", path, status)
    assert line["error"].startswith("Store")


@pytest.mark.parametrize("status", [429, 503])
async def test_refusal_that_may_come_in_floods__keeps_its_headers_and_writes_no_line(
    client: Client, lines: list[Any], status: int
) -> None:
    async with client.get(f"/refused?status={status}") as response:
        assert (await problem(response))["detail"] == "Too many."
        assert response.headers["Retry-After"] == "3"
    assert lines == []


@pytest.mark.parametrize("path", ["/broken_stream", "/refused_stream"])
async def test_answer_that_breaks_off__is_cut_and_never_followed_by_another(
    client: Client, lines: list[Any], path: str
) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.count(b"HTTP/1.1") <= 1
    assert b"problem" not in answer
    assert b"\r\n0\r\n\r\n" not in answer  # with the line end before it: an id may end in 0
    assert len(lines) == 1


async def test_client_that_leaves__is_counted_and_cancels_the_work(
    client: Client, waiting: Waiting, registry: CollectorRegistry, lines: list[Any]
) -> None:
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"GET /waiting HTTP/1.1\r\nHost: x\r\n\r\n")
    await waiting.entered.wait()
    writer.close()
    async with asyncio.timeout(5):
        await waiting.left.wait()
        await writer.wait_closed()
    labels = {"route": "/waiting", "method": "GET", "status": "499"}
    assert registry.get_sample_value("sluice_http_requests_total", labels) == 1
    assert registry.get_sample_value("sluice_http_requests_in_flight") == 0
    assert lines == []


async def test_client_that_leaves_half_way_through_its_body__writes_no_line(
    client: Client, registry: CollectorRegistry, lines: list[Any]
) -> None:
    _, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    async with asyncio.timeout(5):
        while registry.get_sample_value("sluice_http_requests_in_flight") != 1:
            await asyncio.sleep(0.01)
        writer.close()
        while registry.get_sample_value("sluice_http_requests_in_flight") != 0:
            await asyncio.sleep(0.01)
        await writer.wait_closed()
    assert lines == []


async def test_metric_labels__stay_few_whatever_clients_send(client: Client, registry: CollectorRegistry) -> None:
    for number in range(30):
        async with client.get(f"/items/{number}?q={number}"), client.get(f"/nowhere/{number}"):
            pass
    for method in ("PROPFIND", "SEARCH", "LINK"):
        async with client.request(method, "/echo"):
            pass
    seen = [
        (sample.labels["route"], sample.labels["method"], sample.labels["status"])
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "sluice_http_requests_total"
    ]
    assert sorted(seen) == [
        ("/items/{id}", "GET", "200"),
        ("unmatched", "GET", "404"),
        ("unmatched", "OTHER", "405"),
    ]


async def test_asked_time__becomes_the_deadline_on_the_doors_clock() -> None:
    seen: list[RequestContext] = []

    async def look(request: web.Request) -> web.Response:
        seen.append(context(request))
        return web.Response()

    app = create_app(AppConfig(HttpMetrics(CollectorRegistry()), maximum_timeout_s=5, now=lambda: 100.0))
    app.router.add_get("/", look)
    async with TestClient(TestServer(app)) as client:
        for asked in ("1500", "60000", "soon"):
            async with client.get("/", headers={"X-Request-Timeout-Ms": asked}):
                pass
    assert [context.deadline_s for context in seen] == [101.5, 105.0, 105.0]


async def test_unknown_expectation__is_answered(client: Client) -> None:
    async with client.post("/echo", data=b"x", headers={"Expect": "tea"}) as response:
        assert response.status == 417


def test_failure__is_one_line_that_names_what_stands_behind_it_and_quotes_nothing(lines: list[Any]) -> None:
    cause = Problem(502)
    cause.__cause__ = ConnectionError(SECRET)
    record_request("/predict", "POST", 502, 0.1, cause)
    (line,) = lines
    assert (line["error"], line["because"]) == ("Problem", "ConnectionError")
    assert SECRET not in str(line)


@pytest.mark.parametrize("path", ["/crash", "/down", "/slow", "/refused?status=503", "/nowhere", "/broken_stream"])
async def test_error__leaves_nothing_to_the_collector(
    client: Client, circles: Callable[[str], list[str]], path: str
) -> None:
    with suppress(aiohttp.ClientPayloadError):  # the stream that breaks off
        await (await client.get(path)).read()
    assert circles("common") == []

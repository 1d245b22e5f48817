import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from multidict import CIMultiDict
from structlog.testing import capture_logs
from yarl import URL

from common.http.ratelimit import Limit, rate_limit_headers, too_many_requests
from common.journal.recorder import ClientHasher

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]


async def echo(request: web.Request) -> web.Response:
    """What arrived, as JSON."""
    body = await request.read()
    return web.json_response(
        {"line": f"{request.method} {request.raw_path}", "headers": list(request.headers.items()), "size": len(body)}
    )


async def head_of(response: aiohttp.ClientResponse) -> tuple[str, CIMultiDict[str]]:
    document = await response.json()
    return document["line"], CIMultiDict(map(tuple, document["headers"]))


async def test_request__arrives_with_its_headers_made_anew(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo))
    sent = {
        "X-Request-ID": "id-1",
        "X-Forwarded-For": "6.6.6.6",
        "X-Request-Timeout-Ms": "60000",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Authorization": "Bearer of-the-model",
        "Connection": "keep-alive, X-Hop",
        "X-Hop": "1",
        "X-Own": "kept",
    }
    async with edge.http.post(URL("/%70redict?a=%2F", encoded=True), data=b"12345", headers=sent) as response:
        line, arrived = await head_of(response)
        assert (response.status, response.headers["X-Request-ID"]) == (200, "id-1")
        assert len(response.headers.getall("X-Request-ID")) == 1
        assert response.headers["Via"] == "1.1 sluice"
        assert response.headers["RateLimit"].startswith('"predict";r=59;t=')
        assert response.headers["RateLimit-Policy"] == '"predict";q=60;w=60'
        assert response.headers["X-RateLimit-Remaining"] == "59"
    assert line == "POST /predict?a=%2F"
    assert arrived.getall("X-Forwarded-For") == ["127.0.0.1"]
    assert arrived["X-Forwarded-Host"] == f"127.0.0.1:{edge.port}"
    assert arrived["X-Request-ID"] == "id-1"
    assert arrived["traceparent"] == sent["traceparent"]
    assert 30_000 < int(arrived["X-Request-Timeout-Ms"]) <= 60_000
    assert (arrived["Authorization"], arrived["X-Own"]) == ("Bearer of-the-model", "kept")
    assert (arrived["Content-Length"], arrived["Via"]) == ("5", "1.1 sluice")
    assert "X-Hop" not in arrived


async def test_client_behind_a_trusted_proxy__is_told_and_counted_by_its_own_address(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(
        EDGE_UPSTREAM_INFERENCE=await start_upstream(echo), EDGE_TRUSTED_PROXIES="127.0.0.1/32", EDGE_RATE_LIMIT="1"
    )
    for address in ("198.51.100.1", "198.51.100.2"):
        headers = {"X-Forwarded-For": f"1.1.1.1, {address}", "X-Forwarded-Proto": "https"}
        async with edge.http.post("/predict", headers=headers) as response:
            _, arrived = await head_of(response)
            assert (arrived["X-Forwarded-For"], arrived["X-Forwarded-Proto"]) == (address, "https")
    assert await edge.post(headers={"X-Forwarded-For": "198.51.100.1"}) == 429


@pytest.mark.parametrize(
    ("method", "path", "service"),
    [
        ("GET", "/models", "INFERENCE"),
        ("GET", "/v2/health/ready", "INFERENCE"),
        ("POST", "/metrics/aggregated", "METRICS"),
        ("GET", "/dashboard", "METRICS"),
        ("POST", "/analyze/performance", "ANALYST"),
    ],
)
async def test_path__reaches_its_service(
    start_edge: StartEdge, start_upstream: StartUpstream, method: str, path: str, service: str
) -> None:
    edge = await start_edge(**{f"EDGE_UPSTREAM_{service}": await start_upstream(echo)})
    async with edge.http.request(method, path) as response:
        line, _ = await head_of(response)
    assert line == f"{method} {path}"


async def test_redirect_and_status__are_the_clients_to_follow(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    async def moved(_request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://elsewhere/"})

    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(moved))
    async with edge.http.get("/models", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, "http://elsewhere/")


async def test_no_upstream__is_502_with_the_limit_told(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.post("/predict", json={}) as response:
        document = await response.json(content_type="application/problem+json")
        assert (response.status, document["status"]) == (502, 502)
        assert document["request_id"] == response.headers["X-Request-ID"]
        assert response.headers["X-RateLimit-Remaining"] == "59"


@pytest.mark.parametrize("path", ["/predict", "/nowhere", "/%00"])
async def test_error__leaves_nothing_to_the_collector(
    start_edge: StartEdge, circles: Callable[[str], list[str]], path: str
) -> None:
    edge = await start_edge()
    async with edge.http.post(URL(path, encoded=True), json={"text": "a"}) as response:
        assert response.status in (400, 404, 502)
    assert circles("edge_limiter") == []


@pytest.mark.parametrize("name", ["X_Forwarded_For", "X" * 9_000])
async def test_head_that_is_refused__leaves_nothing_to_the_collector(
    start_edge: StartEdge, circles: Callable[[str], list[str]], name: str
) -> None:
    edge = await start_edge()
    async with edge.http.post("/predict", json={"text": "a"}, headers={name: "a" * 30_000}) as response:
        assert response.status in (400, 431)
    assert circles("edge_limiter") == []


async def test_deadline_of_the_client__is_504(start_edge: StartEdge, start_upstream: StartUpstream) -> None:
    async def silent(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(silent))
    assert await edge.post(headers={"X-Request-Timeout-Ms": "50"}) == 504


@pytest.mark.parametrize("asked_ms", ["abc", "60000", None])
async def test_deadline__is_at_most_the_maximum_of_the_operator(
    start_edge: StartEdge, start_upstream: StartUpstream, asked_ms: str | None
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_ANALYST=await start_upstream(echo), EDGE_MAX_TIMEOUT_S="30")
    asked = {} if asked_ms is None else {"X-Request-Timeout-Ms": asked_ms}
    async with edge.http.post("/analyze/performance", json={}, headers=asked) as response:
        _, arrived = await head_of(response)
    assert 20_000 < int(arrived["X-Request-Timeout-Ms"]) <= 30_000


async def test_full_upstream__is_503_with_retry_after(start_edge: StartEdge, start_upstream: StartUpstream) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def held(_request: web.Request) -> web.Response:
        entered.set()
        await leave.wait()
        return web.Response()

    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(held), EDGE_UPSTREAM_LIMIT="1")
    first = asyncio.create_task(edge.post())
    await entered.wait()
    async with edge.http.post("/predict", json={}) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
    leave.set()
    assert await first == 200


async def test_list_of_texts__costs_one_per_text_whole_or_not_at_all(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo), EDGE_RATE_LIMIT="10")

    async def batch(size: int) -> int:
        return int(await edge.post("/predict/batch", json={"texts": ["x"] * size}))

    assert await batch(7) == 200
    assert await batch(4) == 429
    assert await batch(3) == 200
    assert await edge.post() == 429
    assert await edge.post("/models/bundled", json={"inputs": ["x"]}) == 429


async def test_list_above_the_whole_limit__is_refused_and_its_reading_costs_one(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo), EDGE_RATE_LIMIT="3")

    async def batch(size: int) -> tuple[int, str]:
        async with edge.http.post("/predict/batch", json={"texts": ["x"] * size}) as response:
            return response.status, response.headers["X-RateLimit-Remaining"]

    assert await batch(4) == (413, "2")
    assert await edge.post("/v2/models/bundled/infer", json={"inputs": [{"shape": [9, 9]}]}) == 413
    assert await batch(1) == (200, "0")
    assert await batch(4) == (413, "0")
    assert await batch(4) == (429, "0")


async def test_refusal__has_the_member_that_clients_of_the_open_inference_protocol_read(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    """Without `error`, Triton's client reports that it cannot decode the document instead of the limit."""
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo), EDGE_RATE_LIMIT="1")
    infer, found = "/v2/models/bundled/infer", []
    for path, size in ((infer, 2), (infer, 1), ("/predict", 1)):
        async with edge.http.post(path, json={"inputs": [{"shape": [size]}]}) as response:
            problem = await response.json()
            assert response.content_type == "application/problem+json"
            found.append((response.status, problem.get("error") == problem["detail"]))
    assert found == [(413, True), (429, True), (429, False)]


async def test_list_above_this_replicas_share_while_the_store_is_down__is_503(
    start_edge: StartEdge, start_upstream: StartUpstream, free_port: Callable[[], int]
) -> None:
    edge = await start_edge(
        EDGE_UPSTREAM_INFERENCE=await start_upstream(echo),
        EDGE_RATE_LIMIT="10",
        EDGE_REPLICAS="2",
        DATABASE_URL=f"postgresql://x@127.0.0.1:{free_port()}/x",
    )
    async with edge.http.post("/predict/batch", json={"texts": ["x"] * 6}) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "1")
    assert await edge.post("/predict/batch", json={"texts": ["x"] * 5}) == 200


async def test_tensor_whose_length_header_would_end_here__is_refused_instead_of_counted_without_it(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo), EDGE_RATE_LIMIT="10")
    tensor = json.dumps({"inputs": [{"shape": [9], "data": ["x"] * 9}]}).encode()
    head = b"POST /v2/models/bundled/infer HTTP/1.1\r\nHost: edge\r\nConnection: Inference-Header-Content-Length\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(head + b"Inference-Header-Content-Length: 1\r\nContent-Length: %d\r\n\r\n%b" % (len(tensor), tensor))
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400")
    writer.close()


async def test_list_of_a_client_that_is_refused_even_one_text__is_not_read(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo), EDGE_RATE_LIMIT="1")
    assert [await edge.post() for _ in range(2)] == [200, 429]
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(b"POST /predict/batch HTTP/1.1\r\nHost: edge\r\nContent-Length: 1000000\r\n\r\n")
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 429")
    writer.close()


async def test_refusal__is_a_problem_with_the_violated_policy(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo), EDGE_RATE_LIMIT="1")
    await edge.post()
    async with edge.http.post("/predict", json={}) as response:
        document = json.loads(await response.read())
        assert (response.status, response.content_type) == (429, "application/problem+json")
        assert document["violated-policies"] == ["predict"]
        assert document["request_id"] == response.headers["X-Request-ID"]
        assert 1 <= int(response.headers["Retry-After"]) <= 60


async def test_upstream_that_limits_too__has_its_items_kept(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    async def limited(_request: web.Request) -> web.Response:
        return web.Response(headers={"RateLimit": '"quota";r=1;t=2'})

    edge = await start_edge(EDGE_UPSTREAM_ANALYST=await start_upstream(limited))
    async with edge.http.post("/analyze/performance", json={}) as response:
        items = response.headers.getall("RateLimit")
    assert items[0] == '"quota";r=1;t=2'
    assert items[1].startswith('"analyze";r=29;')


async def test_429_of_an_upstream__carries_the_headers_of_its_limit_alone(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    async def limited(_request: web.Request) -> web.Response:
        return too_many_requests(Limit("gemini", 10, 60, 0, 7), "The quota is used up.").response()

    edge = await start_edge(EDGE_UPSTREAM_ANALYST=await start_upstream(limited))
    async with edge.http.post("/analyze/performance", json={}) as response:
        assert response.status == 429
        for name, value in {**dict(rate_limit_headers(Limit("gemini", 10, 60, 0, 7))), "Retry-After": "7"}.items():
            assert response.headers.getall(name) == [value]


async def test_writes_and_single_rows__need_the_admin_token(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_upstream(echo), EDGE_ADMIN_TOKEN="s3cret" * 3)
    for method, path in (("PUT", "/metrics/thresholds"), ("GET", "/metrics/predictions")):
        async with edge.http.request(method, path) as response:
            assert (response.status, response.headers["WWW-Authenticate"]) == (401, 'Bearer realm="sluice"')
        async with edge.http.request(method, path, headers={"Authorization": "Bearer " + "s3cret" * 3}) as response:
            _, arrived = await head_of(response)
            assert "Authorization" not in arrived
    async with edge.http.get("/metrics/thresholds") as response:
        assert response.status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/metrics/aggregated"),
        ("GET", "/metrics/thresholds"),
        ("GET", "/metrics/count"),
        ("GET", "/metrics/drift"),
        ("GET", "/metrics/alerts"),
        ("GET", "/metrics/stream"),
        ("GET", "/metrics/predictions"),
        ("PUT", "/metrics/thresholds"),
    ],
)
async def test_metrics_route__has_a_limit_of_its_own(
    start_edge: StartEdge, start_upstream: StartUpstream, method: str, path: str
) -> None:
    edge = await start_edge(
        EDGE_UPSTREAM_METRICS=await start_upstream(echo), EDGE_METRICS_RATE_LIMIT="2", EDGE_HOST="127.0.0.1"
    )
    statuses = []
    for _ in range(3):
        async with edge.http.request(method, path) as response:
            statuses.append(response.status)
            assert response.headers["RateLimit-Policy"] == '"metrics";q=2;w=60'
    assert statuses == [200, 200, 429]
    async with edge.http.get("/dashboard/1/app.js") as response:
        assert (response.status, "RateLimit" in response.headers) == (200, False)


async def test_wrong_admin_tokens__are_counted_and_past_the_limit_not_compared(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(
        EDGE_UPSTREAM_METRICS=await start_upstream(echo),
        EDGE_UPSTREAM_ANALYST=await start_upstream(echo),
        EDGE_ADMIN_TOKEN="s3cret" * 3,
        EDGE_ADMIN_RATE_LIMIT="2",
        EDGE_TRUSTED_PROXIES="127.0.0.1",
    )

    async def ask(token: str, path: str = "/metrics/predictions", address: str = "192.0.2.1") -> int:
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
        async with edge.http.get(path, headers=headers) as response:
            if response.status == 429:
                assert (await response.json())["violated-policies"] == ["admin"]
            return int(response.status)

    right = "s3cret" * 3
    assert [await ask(token) for token in (right, "a", right, "b", "c")] == [200, 401, 200, 401, 429]
    assert [await ask(right), await ask(right, "/analyze/reports")] == [429, 429]
    assert await ask(right, address="192.0.2.2") == 200
    async with edge.http.get("/metrics/count", headers={"X-Forwarded-For": "192.0.2.1"}) as response:
        assert response.status == 200


async def test_right_admin_token_among_concurrent_wrong_ones__counts_as_a_guess(
    start_edge: StartEdge, start_upstream: StartUpstream, database: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    right = "s3cret" * 3
    edge = await start_edge(
        EDGE_UPSTREAM_METRICS=await start_upstream(echo), EDGE_ADMIN_TOKEN=right, EDGE_ADMIN_RATE_LIMIT="3"
    )

    async def ask(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        async with edge.http.get("/metrics/predictions", headers=headers) as response:
            return int(response.status)

    guesses = []
    async with database.transaction(), asyncio.timeout(60):
        await database.execute("LOCK TABLE edge.admissions")
        for token in ("a", "b", "c", "d", right):
            guesses.append(asyncio.create_task(ask(token)))
            while edge.sample("sluice_http_requests_in_flight") < len(guesses):
                await asyncio.sleep(0)
    assert await asyncio.gather(*guesses) == [401, 401, 401, 429, 429]


async def test_missing_admin_token__is_not_counted(start_edge: StartEdge) -> None:
    edge = await start_edge(EDGE_ADMIN_TOKEN="s3cret" * 3, EDGE_ADMIN_RATE_LIMIT="1")
    for _ in range(3):
        async with edge.http.get("/metrics/predictions") as response:
            assert response.status == 401


async def test_refused_administrator__is_logged_by_the_hash_of_the_client_alone(start_edge: StartEdge) -> None:
    edge = await start_edge(EDGE_ADMIN_TOKEN="s3cret" * 3, EVENTS_HASH_KEY="key", EDGE_TRUSTED_PROXIES="127.0.0.1")
    sent = {"Authorization": "Bearer guessed", "X-Forwarded-For": "192.0.2.1"}
    with capture_logs() as logs:
        async with edge.http.put("/metrics/thresholds", headers=sent) as response:
            assert response.status == 401
    [line] = [line for line in logs if line["event"] == "request refused"]
    assert (line["status"], line["client"]) == (401, ClientHasher("key")("192.0.2.1"))
    assert not any(secret in str(logs) for secret in ("192.0.2.1", "guessed", "s3cret"))


async def test_public_edge_without_a_token__refuses_and_names_the_variable(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_upstream(echo), EDGE_HOST="0.0.0.0")
    async with edge.http.put("/metrics/thresholds") as response:
        assert response.status == 403
        assert "EDGE_ADMIN_TOKEN" in await response.text()


async def test_loopback_edge_without_a_token__is_open(start_edge: StartEdge, start_upstream: StartUpstream) -> None:
    edge = await start_edge(EDGE_UPSTREAM_METRICS=await start_upstream(echo), EDGE_HOST="127.0.0.1")
    async with edge.http.put("/metrics/thresholds") as response:
        assert response.status == 200


async def test_loopback_edge_behind_a_proxy_without_a_token__is_closed_to_whoever_says_localhost(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    edge = await start_edge(
        EDGE_UPSTREAM_METRICS=await start_upstream(echo), EDGE_HOST="127.0.0.1", EDGE_TRUSTED_PROXIES="127.0.0.1"
    )
    async with edge.http.put("/metrics/thresholds", headers={"Host": "localhost"}) as response:
        assert response.status == 403
        assert "EDGE_ADMIN_TOKEN" in await response.text()


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        (b"GET //evil/predict HTTP/1.1", b"", b"400"),
        (b"GET /metrics/../predict HTTP/1.1", b"", b"400"),
        (b"POST /predict%2fbatch HTTP/1.1", b"", b"400"),
        (b"GET http://evil/predict HTTP/1.1", b"", b"400"),
        (b"OPTIONS * HTTP/1.1", b"", b"400"),
        (b"GET /nowhere HTTP/1.1", b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"501"),
        (b"GET /metrics/stream HTTP/1.1", b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"501"),
        (b"POST /predict HTTP/1.1", b"Transfer-Encoding: gzip, chunked\r\n", b"501"),
        (b"POST /predict HTTP/1.1", b"Content-Length: 0\r\nX_Forwarded_For: 1.1.1.1\r\n", b"400"),
        (b"GET /unknown HTTP/1.1", b"", b"404"),
        (b"TRACE /predict HTTP/1.1", b"", b"501"),
    ],
)
async def test_ambiguous_request__never_reaches_an_upstream(
    start_edge: StartEdge, start_upstream: StartUpstream, line: bytes, headers: bytes, status: bytes
) -> None:
    arrived: list[str] = []

    async def record(request: web.Request) -> web.Response:
        arrived.append(request.raw_path)
        return web.Response()

    origin = await start_upstream(record)
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=origin, EDGE_UPSTREAM_METRICS=origin)
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(line + b"\r\nHost: edge\r\n" + headers + b"\r\n")
    async with asyncio.timeout(5):
        assert (await reader.readline()).split(b" ")[1] == status
    writer.close()
    await writer.wait_closed()
    assert arrived == []


@pytest.mark.parametrize("head", [b"Upgrade: websocket", b"X_Forwarded_For: 1.1.1.1", b"Host: a@b"])
async def test_connection__is_closed_after_a_head_that_was_refused(start_edge: StartEdge, head: bytes) -> None:
    edge = await start_edge()
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    host = b"" if head.startswith(b"Host") else b"Host: edge\r\n"
    writer.write(b"GET /models HTTP/1.1\r\n" + host + head + b"\r\n\r\nGET / HTTP/1.1\r\nHost: edge\r\n\r\n")
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"Connection: close" in answer


@pytest.mark.parametrize(("level", "lines"), [("DEBUG", 1), ("INFO", 0)])
async def test_good_answer__has_a_line_at_level_debug_alone(
    start_edge: StartEdge, start_upstream: StartUpstream, caplog: pytest.LogCaptureFixture, level: str, lines: int
) -> None:
    edge = await start_edge(EDGE_UPSTREAM_INFERENCE=await start_upstream(echo))
    caplog.set_level(level, logger="sluice")
    with capture_logs() as logs:
        assert await edge.post() == 200
    assert len([line for line in logs if line["event"] == "request" and line["route"] == "/predict"]) == lines

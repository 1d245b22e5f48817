"""nginx with the documented recipe, deploy/gateways/nginx.conf, in front of a real edge."""

import asyncio
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

RECIPE: Final = Path(__file__).parents[4] / "deploy" / "gateways" / "nginx.conf"
START_TIMEOUT_S: Final = 20.0
MAIN: Final = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  include {folder}/recipe.conf;
}}
"""

StartEdge = Callable[..., Awaitable[Any]]
StartNginx = Callable[[int], Awaitable[str]]


async def application(request: web.Request) -> web.Response:
    return web.json_response({"method": request.method, "path": request.path_qs, "body": await request.text()})


@pytest.fixture
async def start_nginx(
    tmp_path: Path, free_port: Callable[[], int], start_upstream: Callable[..., Awaitable[str]]
) -> AsyncIterator[StartNginx]:
    """Call it with the edge's port for the URL of nginx in front of `application`."""
    assert shutil.which("nginx"), "nginx is not installed; on Debian: apt install nginx-light"
    async with AsyncExitStack() as stack:

        async def start(edge_port: int) -> str:
            port = free_port()
            origin = (await start_upstream(application)).removeprefix("http://")
            recipe = RECIPE.read_text().replace("127.0.0.1:8000", f"127.0.0.1:{edge_port}")
            recipe = recipe.replace("127.0.0.1:8080", origin).replace("listen 80;", f"listen 127.0.0.1:{port};")
            (tmp_path / "recipe.conf").write_text(recipe)
            (tmp_path / "nginx.conf").write_text(MAIN.format(folder=tmp_path))
            process = subprocess.Popen(["nginx", "-c", tmp_path / "nginx.conf", "-p", tmp_path])
            stack.callback(process.wait, START_TIMEOUT_S)
            stack.callback(process.terminate)
            await _until_listening(process, port)
            return f"http://127.0.0.1:{port}"

        yield start


async def _until_listening(process: "subprocess.Popen[bytes]", port: int) -> None:
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            assert process.poll() is None, "nginx did not start"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


async def start_trusting_edge(start_edge: StartEdge, **settings: str) -> Any:
    return await start_edge(EDGE_TRUSTED_PROXIES="127.0.0.1/32", **settings)


async def test_requests_past_the_limit__are_refused_by_nginx_as_the_edge_decided(
    start_edge: StartEdge, start_nginx: StartNginx, tmp_path: Path
) -> None:
    edge = await start_trusting_edge(start_edge, EDGE_RATE_LIMIT="5")
    url = await start_nginx(edge.port)
    async with aiohttp.ClientSession(url) as client:
        for remaining in range(4, -1, -1):
            async with client.post("/predict?x=1", data="text") as response:
                assert await response.json() == {"method": "POST", "path": "/predict?x=1", "body": "text"}
                assert response.headers["RateLimit"].startswith(f'"predict";r={remaining};')
                assert response.headers["RateLimit-Policy"] == '"predict";q=5;w=60'
        for _ in range(3):
            async with client.post("/predict", data="text") as response:
                assert response.status == 429
                assert 1 <= int(response.headers["Retry-After"]) <= 60
                assert response.headers["RateLimit"].startswith('"predict";r=0;')
                assert response.content_type == "application/problem+json"
                assert (await response.json())["title"] == "Quota exceeded"
    assert (tmp_path / "error.log").read_text() == ""


async def test_concurrent_requests__exactly_the_limit_reaches_the_application(
    start_edge: StartEdge, start_nginx: StartNginx
) -> None:
    edge = await start_trusting_edge(start_edge)
    url = await start_nginx(edge.port)
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as client:

        async def post() -> int:
            async with client.post("/predict", data="text") as response:
                await response.read()
                return response.status

        statuses = Counter(await asyncio.gather(*(post() for _ in range(100))))
    assert statuses == {200: 60, 429: 40}


@pytest.mark.parametrize("headers", [{"X-Cost": "5"}, {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-Uri": "/"}])
async def test_headers_for_the_edge__from_a_client__have_no_effect(
    start_edge: StartEdge, start_nginx: StartNginx, headers: dict[str, str]
) -> None:
    edge = await start_trusting_edge(start_edge, EDGE_RATE_LIMIT="5")
    url = await start_nginx(edge.port)
    async with aiohttp.ClientSession(url) as client:
        statuses = []
        for sent in (headers, {}, headers):
            async with client.post("/predict", data="text", headers=sent) as response:
                statuses.append((response.status, response.headers["RateLimit"].split(";")[1]))
    assert statuses == [(200, "r=4"), (200, "r=3"), (200, "r=2")]


async def test_other_answers_of_the_edge__do_not_admit_a_request(
    start_upstream: Callable[..., Awaitable[str]], start_nginx: StartNginx
) -> None:
    async def reject(_request: web.Request) -> web.Response:
        return web.Response(status=400)

    rejecting = await start_upstream(reject)
    url = await start_nginx(int(rejecting.rpartition(":")[2]))
    async with aiohttp.ClientSession(url) as client, client.post("/predict", data="text") as response:
        assert response.status == 503


async def test_edge_down__application_still_answers(start_nginx: StartNginx, free_port: Callable[[], int]) -> None:
    url = await start_nginx(free_port())
    async with aiohttp.ClientSession(url) as client, client.post("/predict", data="text") as response:
        assert response.status == 200
        assert (await response.json())["body"] == "text"

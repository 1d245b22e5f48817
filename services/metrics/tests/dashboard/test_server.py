"""The dashboard's routes in a small app without stores."""

import gzip
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from common.http.app import AppConfig, create_app
from common.runtime.metrics import HttpMetrics
from metrics.dashboard.assets import Assets, read_assets
from metrics.dashboard.server import add_dashboard

Client = TestClient[web.Request, web.Application]


@pytest.fixture(scope="module")
def assets() -> Assets:
    return read_assets()


@pytest.fixture
async def client(assets: Assets) -> AsyncIterator[Client]:
    app = create_app(AppConfig(HttpMetrics(CollectorRegistry())))
    add_dashboard(app, assets)
    async with TestClient(TestServer(app), auto_decompress=False) as client:
        yield client


async def test_the_page__may_load_from_its_own_origin_only(client: Client) -> None:
    response = await client.get("/dashboard")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(one.strip().split(" ", 1) for one in response.headers["Content-Security-Policy"].split(";"))
    assert policy.pop("require-trusted-types-for") == "'script'"
    assert policy.pop("default-src") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["X-Request-ID"]


async def test_the_page__is_asked_for_again_and_not_sent_again(client: Client) -> None:
    first = await client.get("/dashboard")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await client.get("/dashboard", headers={"If-None-Match": f'"other", {first.headers["ETag"]}'})
    assert again.status == 304
    assert await again.read() == b""
    assert again.headers["ETag"] == first.headers["ETag"]
    assert "Content-Security-Policy" in again.headers


async def test_files__keep_for_ever_and_have_their_type(client: Client, assets: Assets) -> None:
    types = {"app.js": "text/javascript", "base.css": "text/css", "icon.svg": "image/svg+xml"}
    for name, content_type in types.items():
        response = await client.get(f"/dashboard/{assets.version}/{name}")
        assert response.status == 200
        assert response.content_type == content_type
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "'self'" in response.headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("accepted", "is_zipped"),
    [
        ("gzip, deflate, br", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=1.0", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("br", False),
        ("", False),
    ],
)
async def test_a_file__is_compressed_for_who_takes_it(
    client: Client, assets: Assets, accepted: str, is_zipped: bool
) -> None:
    response = await client.get(f"/dashboard/{assets.version}/app.js", headers={"Accept-Encoding": accepted})
    body = await response.read()
    assert (response.headers.get("Content-Encoding") == "gzip") is is_zipped
    assert response.headers["Vary"] == "Accept-Encoding"
    assert (gzip.decompress(body) if is_zipped else body) == assets.files["app.js"].body


async def test_head__is_like_get_without_the_body(client: Client, assets: Assets) -> None:
    response = await client.head("/dashboard", headers={"Accept-Encoding": "gzip"})
    assert response.status == 200
    assert int(response.headers["Content-Length"]) == len(assets.page.gzipped)
    assert await response.read() == b""


@pytest.mark.parametrize("path", ["0000/none.js", "{version}/none.js", "{version}/index.html", "{version}/..%2fapp.py"])
async def test_a_file_that_is_not_of_this_version__is_404(client: Client, assets: Assets, path: str) -> None:
    response = await client.get(f"/dashboard/{path.format(version=assets.version)}")
    assert response.status == 404
    assert response.content_type == "application/problem+json"
    assert response.headers["Cache-Control"] == "no-store"


async def test_a_file_requested_under_another_version__is_sent_and_not_kept(client: Client, assets: Assets) -> None:
    response = await client.get("/dashboard/0000/app.js", headers={"Accept-Encoding": "identity"})
    assert response.status == 200
    assert await response.read() == assets.files["app.js"].body
    assert response.headers["Cache-Control"] == "no-cache"


async def test_a_trailing_slash__leads_to_the_page(client: Client) -> None:
    response = await client.get("/dashboard/", allow_redirects=False)
    assert (response.status, response.headers["Location"]) == (308, "/dashboard")


async def test_a_post__is_405(client: Client) -> None:
    assert (await client.post("/dashboard")).status == 405

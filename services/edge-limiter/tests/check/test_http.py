"""`GET /check` on the real edge, asked by a trusted gateway."""

import hashlib
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

StartEdge = Callable[..., Awaitable[Any]]
StartUpstream = Callable[..., Awaitable[str]]
TRUSTED = {"EDGE_TRUSTED_PROXIES": "127.0.0.1/32"}
PARTNERS = """
[[policies]]
name = "partners"
paths = ["/predict"]
limit = 5
window_s = 60
identity = "api-key"
keys = ["%s"]
"""


async def ask(edge: Any, address: str = "192.0.2.1", **headers: str) -> tuple[int, Any]:
    """Return status and headers of a check for a POST /predict from `address`."""
    described = {"X-Forwarded-For": address, "X-Forwarded-Method": "POST", "X-Forwarded-Uri": "/predict"}
    sent = described | {name.replace("_", "-"): value for name, value in headers.items()}
    async with edge.http.get("/check", headers=sent) as response:
        return response.status, response.headers


async def test_check__shares_the_limit_of_proxied_requests(
    start_edge: StartEdge, start_upstream: StartUpstream
) -> None:
    async def fine(_request: web.Request) -> web.Response:
        return web.Response()

    edge = await start_edge(EDGE_RATE_LIMIT="4", EDGE_UPSTREAM_INFERENCE=await start_upstream(fine), **TRUSTED)
    for _ in range(2):
        assert await edge.post(headers={"X-Forwarded-For": "192.0.2.1"}) == 200
    assert [(await ask(edge))[0] for _ in range(3)] == [200, 200, 429]
    assert (await ask(edge, "192.0.2.2"))[0] == 200
    assert await edge.post(headers={"X-Forwarded-For": "192.0.2.1"}) == 429


async def test_check__answers_with_the_headers_of_a_limit(start_edge: StartEdge) -> None:
    edge = await start_edge(EDGE_RATE_LIMIT="1", **TRUSTED)
    status, headers = await ask(edge)
    assert (status, headers["RateLimit-Policy"], headers["X-RateLimit-Remaining"]) == (200, '"predict";q=1;w=60', "0")
    status, headers = await ask(edge)
    assert (status, headers["RateLimit"].partition(";t=")[0]) == (429, '"predict";r=0')
    assert 1 <= int(headers["Retry-After"]) <= 60


async def test_check_with_a_cost__charges_that_many_units(start_edge: StartEdge) -> None:
    edge = await start_edge(EDGE_RATE_LIMIT="10", **TRUSTED)
    costs = [(await ask(edge, X_Cost=cost))[0] for cost in ("11", "7", "4", "2", "1")]
    assert costs == [413, 200, 429, 200, 429]


@pytest.mark.parametrize("cost", ["0", "-1", "1.5", "ten", "²", "9999999999"])
async def test_check_with_a_malformed_cost__is_400(start_edge: StartEdge, cost: str) -> None:
    edge = await start_edge(**TRUSTED)
    assert (await ask(edge, X_Cost=cost))[0] == 400


async def test_check_of_an_api_key__uses_the_policy_file(start_edge: StartEdge, tmp_path: Path) -> None:
    path = tmp_path / "policies.toml"
    path.write_text(PARTNERS % hashlib.sha256(b"secret").hexdigest())
    edge = await start_edge(EDGE_RATE_LIMIT="2", EDGE_POLICY_FILE=str(path), **TRUSTED)
    with_key = Counter([(await ask(edge, X_API_Key="secret"))[0] for _ in range(7)])
    unknown = Counter([(await ask(edge, X_API_Key="guess"))[0] for _ in range(4)])
    assert (with_key, unknown) == ({200: 5, 429: 2}, {200: 2, 429: 2})


async def test_check_with_nginx_headers__reads_the_original_request(start_edge: StartEdge) -> None:
    edge = await start_edge(EDGE_RATE_LIMIT="1", **TRUSTED)
    headers = {"X-Forwarded-For": "192.0.2.1", "X-Original-Method": "POST", "X-Original-URI": "/predict?a=1"}
    for expected in (200, 429):
        async with edge.http.get("/check", headers=headers) as response:
            assert response.status == expected


async def test_check_of_a_path_of_another_service__passes_unlimited(start_edge: StartEdge) -> None:
    edge = await start_edge(EDGE_RATE_LIMIT="1", **TRUSTED)
    for _ in range(3):
        status, headers = await ask(edge, X_Forwarded_Uri="/shop")
        assert status == 200
        assert "RateLimit" not in headers


async def test_check_without_a_path__is_400(start_edge: StartEdge) -> None:
    edge = await start_edge(**TRUSTED)
    async with edge.http.get("/check", headers={"X-Forwarded-For": "192.0.2.1"}) as response:
        assert response.status == 400
        assert "X-Forwarded-Uri" in (await response.json())["detail"]


async def test_check_from_an_untrusted_peer__is_403_and_charges_nothing(start_edge: StartEdge) -> None:
    edge = await start_edge()
    async with edge.http.get("/check", headers={"X-Forwarded-Uri": "/predict"}) as response:
        assert response.status == 403
        assert "EDGE_TRUSTED_PROXIES" in (await response.json())["detail"]
    assert edge.sample("sluice_edge_decisions_total", policy="predict", outcome="allowed", source="store") == 0


async def test_check_by_envoy__is_decided_whatever_its_method(start_edge: StartEdge) -> None:
    edge = await start_edge(EDGE_RATE_LIMIT="1", **TRUSTED)
    headers = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Uri": "/predict"}
    for expected in (200, 429):
        async with edge.http.post("/check", headers=headers) as response:
            assert (response.status, response.headers["Content-Length"] == "0") == (expected, expected == 200)

"""User journeys through the edge's port: real stores, a real model, four real processes."""

import asyncio
import math
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from system import System

JSON = {"Content-Type": "application/json"}
POSITIVE = {"text": "A thoughtful, moving film."}


def client(address: str, url: str) -> aiohttp.ClientSession:
    """Return a client with this address."""
    return aiohttp.ClientSession(url, headers={"X-Forwarded-For": address})


async def counted(system: System, expected: int) -> None:
    """Wait until the count is `expected`, at most ten seconds."""
    async with asyncio.timeout(10), client("198.51.100.250", system.url) as session:
        while True:
            async with session.get("/metrics/count") as response:
                if response.status == 200 and (await response.json())["count"] == expected:
                    return
            await asyncio.sleep(0.05)


async def count(system: System) -> int:
    """Return the count of all earlier predictions. They are stored in order, so wait for one more."""
    marker = str(uuid.uuid4())
    async with client("198.51.100.249", system.url) as session:
        async with session.post("/predict", json=POSITIVE, headers={"X-Request-ID": marker}) as response:
            assert response.status == 200
    await stored(system, marker)
    async with client("198.51.100.250", system.url) as session, session.get("/metrics/count") as response:
        return int((await response.json())["count"])


async def stored(system: System, request_id: str) -> None:
    """Wait until the prediction of that request is in PostgreSQL."""
    database = await system.database()
    try:
        async with asyncio.timeout(60):
            while not await database.fetchval("SELECT 1 FROM metrics.prediction WHERE request_id = $1", request_id):
                await asyncio.sleep(0.05)
    finally:
        await database.close()


async def test_positive_text__is_answered_and_counted(system: System) -> None:
    before = await count(system)
    async with client("198.51.100.1", system.url) as session:
        async with session.post("/predict", json=POSITIVE, headers={"X-Request-ID": "journey-1"}) as response:
            answer = await response.json()
    assert response.status == 200
    assert answer["label"] == "POSITIVE"
    assert answer["request_id"] == response.headers["X-Request-ID"] == "journey-1"
    await counted(system, before + 1)


async def test_hundred_requests_within_a_second__exactly_sixty_are_answered(system: System) -> None:
    started = time.monotonic()
    async with client("198.51.100.2", system.url) as session:
        answers = await asyncio.gather(*(predict(session) for _ in range(100)))
    assert time.monotonic() - started < 30  # one window is sixty seconds: no slot came free
    assert Counter(status for status, _ in answers) == {200: 60, 429: 40}
    for status, headers in answers:
        assert headers["RateLimit-Policy"].startswith('"predict";q=60;w=60')
        assert "RateLimit" in headers
        if status == 429:
            assert 1 <= int(headers["Retry-After"]) <= 60
            assert headers["Content-Type"].startswith("application/problem+json")


async def predict(session: aiohttp.ClientSession) -> tuple[int, dict[str, str]]:
    async with session.post("/predict", json=POSITIVE) as response:
        await response.read()
        return response.status, dict(response.headers)


BAD_REQUESTS: list[tuple[str, dict[str, Any], int]] = [
    ("bad JSON", {"data": b'{"text": ', "headers": JSON}, 400),
    ("wrong type", {"json": {"text": 7}}, 422),
    ("unknown field", {"json": {"txt": "x"}}, 422),
    ("invalid UTF-8", {"data": b'{"text": "\xff\xfe"}', "headers": JSON}, 400),
    ("2 MB", {"data": BytesIO(b'{"text": "' + b"a" * 2_000_000 + b'"}'), "headers": JSON}, 413),
    ("blank", {"json": {"text": " \n\t"}}, 422),
    ("too long", {"json": {"text": "a" * 10_001}}, 422),
    ("not JSON by its type", {"data": b"text=hello", "headers": {"Content-Type": "text/plain"}}, 415),
]


@pytest.mark.parametrize(("name", "request_", "status"), BAD_REQUESTS, ids=[name for name, _, _ in BAD_REQUESTS])
async def test_bad_input__is_a_problem_document_without_echo_and_one_log_line(
    system: System, name: str, request_: dict[str, Any], status: int
) -> None:
    async with client("198.51.100.3", system.url) as session:
        async with session.post("/predict", **request_) as response:
            document = await response.json(content_type="application/problem+json")
        await logged_until_now(system, session)
    assert system.logs().count(document["request_id"]) == 1
    assert response.status == document["status"] == status
    assert document["request_id"] == response.headers["X-Request-ID"]
    echoable = str(document | {"request_id": ""})  # a random id may hold any run of letters
    assert "aaaa" not in echoable and "hello" not in echoable


async def logged_until_now(system: System, session: aiohttp.ClientSession) -> None:
    """Wait until the logs of edge and inference include a new request, and so all earlier ones."""
    for refused in (session.get("/nowhere"), session.post("/predict", json={"text": ""})):
        async with refused as response:
            request_id = response.headers["X-Request-ID"]
        async with asyncio.timeout(60):
            while request_id not in system.logs():
                await asyncio.sleep(0.02)


async def test_unknown_route__is_404(system: System) -> None:
    async with client("198.51.100.4", system.url) as session, session.get("/nowhere") as response:
        document = await response.json(content_type="application/problem+json")
    assert response.status == document["status"] == 404


async def test_aggregates_and_report__have_the_same_numbers(system: System) -> None:
    before = await count(system)
    async with client("198.51.100.5", system.url) as session:
        for _ in range(5):
            assert (await predict(session))[0] == 200
        await counted(system, before + 5)
        async with session.post("/metrics/aggregated", json={"window": "1h"}) as response:
            aggregate = await response.json()
        async with session.post("/analyze/performance", json={"window": "1h"}) as response:
            report = await response.json()
        assert response.headers["X-Cache"] == "MISS"
        async with session.post("/analyze/performance", json={"window": "1h"}) as response:
            again = await response.json()
    assert response.headers["X-Cache"] == "HIT"
    assert again["report_id"] == report["report_id"]
    assert report["source"] == "rules"
    assert aggregate["predictions"] >= before + 5
    assert math.isclose(sum(label["share"] for label in aggregate["labels"]), 1)


async def test_thresholds__are_read_and_written_with_an_etag(system: System) -> None:
    rule = {"name": "slow", "metric": "latency_ms.p95", "above": 500.0}
    token = system.service("edge_limiter").environ()["EDGE_ADMIN_TOKEN"]
    headers = {"Authorization": f"Bearer {token}"}
    async with client("198.51.100.6", system.url) as session:
        async with session.get("/metrics/thresholds") as response:
            etag = response.headers["ETag"]
        async with session.put("/metrics/thresholds", json={"rules": [rule]}, headers={"If-Match": etag}) as response:
            assert response.status == 401
        headers["If-Match"] = etag
        async with session.put("/metrics/thresholds", json={"rules": [rule]}, headers=headers) as response:
            assert response.status == 200
        async with session.put("/metrics/thresholds", json={"rules": []}, headers=headers) as response:
            assert response.status == 412


async def test_health_and_root__describe_the_system(system: System) -> None:
    async with client("198.51.100.7", system.url) as session:
        async with session.get("/") as response:
            assert (await response.json())["name"] == "sluice"
    health = await system.healthy()
    assert health["database"]["status"] == "ok"
    assert health["model"]["state"] == "no_key"


async def specification(url: str) -> dict[str, Any]:
    async with client("198.51.100.8", url) as session, session.get("/openapi.json") as response:
        document: dict[str, Any] = await response.json()
    return document


@pytest.mark.parametrize("place", range(4), ids=["merged", "inference", "metrics", "analyst"])
async def test_specification__is_valid_openapi_3_1(system: System, place: int) -> None:
    document = await specification(f"http://127.0.0.1:{system.port_base + place}")
    assert document["openapi"].startswith("3.1")
    validate(document)


async def test_merged_specification__has_every_documented_route_of_every_service(system: System) -> None:
    merged = await system.specification()
    for place in range(1, 4):
        document = await specification(f"http://127.0.0.1:{system.port_base + place}")
        for path, item in document["paths"].items():
            assert item.keys() <= merged["paths"][path].keys()
    assert {"/", "/health", "/v2/models/{model}/infer", "/models/{model}"} <= merged["paths"].keys()


async def test_page_on_http__lists_exactly_the_existing_routes(system: System) -> None:
    document = await system.specification()
    there = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    page = (Path(__file__).parents[1] / "docs" / "http.md").read_text()
    assert set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", page, re.MULTILINE)) == there


async def test_every_request_and_response__has_an_example_that_fits_its_schema(system: System) -> None:
    document = await system.specification()
    bodies = list(described_bodies(document))
    assert len(bodies) > 100
    for media, described in bodies:
        assert "schema" in described or media not in ("application/json", "application/problem+json")
        assert "example" in described, described
        if "schema" in described:
            schema = {**described["schema"], "components": document["components"]}
            OAS31Validator(schema).validate(described["example"])


def described_bodies(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every media type of every request and response."""
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    described = [operation["requestBody"] for operation in operations if "requestBody" in operation]
    described += [answer for operation in operations for answer in operation["responses"].values()]
    described += document["components"]["responses"].values()
    for each in described:
        yield from each.get("content", {}).items()

"""Tests of the early refusal, on the real app with a scripted engine: it looks like the one from within, and spares
what can be answered."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest


@pytest.fixture
def pressed(start: Any, stage: Any) -> Callable[..., Any]:
    """Call it for a client of a service that holds one text and takes no more."""

    @asynccontextmanager
    async def client(before: Callable[[Any], Awaitable[Any]] | None = None, **settings: Any) -> AsyncIterator[Any]:
        found = await start(inference_max_wait_s=1e-9, **settings)
        if before is not None:
            await before(found)
        stage.hold()
        first = asyncio.create_task(found.post("/predict", json={"text": "first"}))
        await stage.entered()
        yield found
        stage.release()
        assert (await first).status == 200

    return client


async def test_text_that_would_be_refused__is_refused_with_the_same_document(pressed: Any) -> None:
    async with pressed() as client:
        early = await client.post("/predict", json={"text": "bad"}, headers={"X-Request-ID": "one"})
        inner = await client.post("/predict/batch", json={"texts": ["bad"]}, headers={"X-Request-ID": "one"})
        assert early.status == inner.status == 503
        assert await early.json() == await inner.json()
        for name in ("Content-Type", "X-Request-ID", "Retry-After"):
            assert early.headers[name] == inner.headers[name]


async def test_refusals__are_counted_and_on_record(pressed: Any, recorded_refusals: Any) -> None:
    async with pressed() as client:
        for _ in range(3):
            await client.post("/predict", json={"text": "bad"})
        value = client.service.registry.get_sample_value
        labels = {"route": "/predict", "method": "POST", "status": "503"}
        assert value("sluice_inference_refusals_total", {"reason": "overloaded"}) == 3
        assert value("sluice_http_requests_total", labels) == 3
    assert await recorded_refusals(3) == {("/predict", "unavailable"): 3}


async def test_text_that_is_late_in_any_case__is_504_and_counted_as_that(pressed: Any, recorded_refusals: Any) -> None:
    async with pressed() as client:
        late = await client.post("/predict", json={"text": "bad"}, headers={"X-Request-Timeout-Ms": "0"})
        assert late.status == 504
        value = client.service.registry.get_sample_value
        assert value("sluice_inference_refusals_total", {"reason": "deadline"}) == 1
        assert value("sluice_inference_refusals_total", {"reason": "overloaded"}) == 0
    assert await recorded_refusals(1) == {("/predict", "timeout"): 1}


async def test_refusals__leave_nothing_to_the_collector(pressed: Any, circles: Callable[[str], list[str]]) -> None:
    async with pressed() as client:
        for path, body in (("/predict", {"text": "bad"}), ("/predict/batch", {"texts": ["bad"]})):
            assert (await client.post(path, json=body)).status == 503
        assert circles("inference") == []


async def test_text_whose_answer_is_known__is_answered(pressed: Any) -> None:
    async def ask(client: Any) -> None:
        await client.post("/predict", json={"text": "good"})

    async with pressed(ask) as client:
        response = await client.post("/predict", json={"text": "good"})
        assert (response.status, (await response.json())["cached"]) == (200, True)


async def test_text_that_is_on_its_way__is_shared(pressed: Any) -> None:
    async with pressed() as client:
        second = asyncio.create_task(client.post("/predict", json={"text": "first"}))
        while not client.service.registry.get_sample_value("sluice_http_requests_in_flight") == 2:
            await asyncio.sleep(0)
    assert (await second).status == 200


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b'{"text": "  "}', 422),
        (b'{"text": "bad", "more": 1}', 422),
        (b'{"text": "' + b"a" * 10_001 + b'"}', 422),
        (b"[]", 422),
        (b"{}", 422),
        (b'{"text": 7}', 422),
        (b'{"text": ""}', 422),
        (b'{"text": "\\ud800"}', 400),
    ],
)
async def test_malformed_body__is_told_what_is_wrong_even_then(pressed: Any, content: bytes, status: int) -> None:
    async with pressed() as client:
        response = await client.post("/predict", data=content, headers={"Content-Type": "application/json"})
        assert response.status == status


async def test_body_of_another_type__is_told_so_even_then(pressed: Any) -> None:
    async with pressed() as client:
        response = await client.post("/predict", data=b'{"text": "bad"}', headers={"Content-Type": "text/plain"})
        assert response.status == 415


@pytest.mark.parametrize(
    ("content", "status"), [(b"broken", 400), (gzip.compress(b'{"text": "' + b"a" * (2 << 20) + b'"}'), 413)]
)
async def test_packed_body_that_cannot_be_read__is_a_problem_document_that_counts(
    pressed: Any, content: bytes, status: int
) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "X-Request-ID": "one"}
    async with pressed() as client:
        response = await client.post("/predict", data=content, headers=headers)
        assert (response.status, response.content_type) == (status, "application/problem+json")
        assert response.headers["X-Request-ID"] == "one"
        labels = {"route": "/predict", "method": "POST", "status": str(status)}
        assert client.service.registry.get_sample_value("sluice_http_requests_total", labels) == 1

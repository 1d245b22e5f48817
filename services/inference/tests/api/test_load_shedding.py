"""Early refusals, on the real app with a scripted engine: they look like the app's, and spare what can be answered."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest


@pytest.fixture
def full(start: Any, stage: Any) -> Callable[..., Any]:
    """Call it for a client of a service that scores one text and accepts no other; it has cached `known`."""

    @asynccontextmanager
    async def client(known: str = "known") -> AsyncIterator[Any]:
        found = await start(inference_max_wait_s=1e-9)
        assert (await found.post("/predict", json={"text": known})).status == 200
        await stage.entered()
        stage.hold()
        first = asyncio.create_task(found.post("/predict", json={"text": "first"}))
        await stage.entered()
        yield found
        stage.release()
        assert (await first).status == 200

    return client


async def test_refusal__is_the_apps_document_counted_and_recorded(full: Any, recorded_refusals: Any) -> None:
    async with full() as client:
        early = await client.post("/predict", json={"text": "bad"}, headers={"X-Request-ID": "one"})
        whole = await client.post("/predict/batch", json={"texts": ["bad"]}, headers={"X-Request-ID": "one"})
        assert early.status == whole.status == 503
        assert await early.json() == await whole.json()
        for name in ("Content-Type", "X-Request-ID", "Retry-After"):
            assert early.headers[name] == whole.headers[name]
        assert int(early.headers["Retry-After"]) >= 1
        value = client.service.registry.get_sample_value
        labels = {"route": "/predict", "method": "POST", "status": "503"}
        assert value("sluice_inference_refusals_total", {"reason": "overloaded"}) == 2
        assert value("sluice_http_requests_total", labels) == 1
    assert await recorded_refusals(2) == {("/predict", "unavailable"): 1, ("/predict/batch", "unavailable"): 1}


async def test_text_that_is_late_anyway__is_504(full: Any, recorded_refusals: Any) -> None:
    async with full() as client:
        late = await client.post("/predict", json={"text": "bad"}, headers={"X-Request-Timeout-Ms": "0"})
        assert late.status == 504
        value = client.service.registry.get_sample_value
        assert value("sluice_inference_refusals_total", {"reason": "deadline"}) == 1
        assert value("sluice_inference_refusals_total", {"reason": "overloaded"}) == 0
    assert await recorded_refusals(1) == {("/predict", "timeout"): 1}


async def test_refusals__leave_no_reference_cycles(full: Any, circles: Callable[[str], list[str]]) -> None:
    async with full() as client:
        for path, body in (("/predict", {"text": "bad"}), ("/predict/batch", {"texts": ["bad"]})):
            assert (await client.post(path, json=body)).status == 503
        assert circles("inference") == []


async def test_known_text__is_answered(full: Any) -> None:
    async with full(known="good") as client:
        response = await client.post("/predict", json={"text": "good"})
        assert (response.status, (await response.json())["cached"]) == (200, True)


async def test_text_being_scored__is_shared(full: Any) -> None:
    async with full() as client:
        second = asyncio.create_task(client.post("/predict", json={"text": "first"}))
        while not client.service.registry.get_sample_value("sluice_http_requests_in_flight") == 2:
            await asyncio.sleep(0)
    assert (await second).status == 200


async def test_invalid_request__is_reported_instead(full: Any) -> None:
    async with full() as client:
        for content, changed, status in (
            (b"{", {}, 400),
            (b'{"text": "  "}', {}, 422),
            (b"[]", {}, 422),
            (b'{"text": "bad"}', {"Content-Type": "text/plain"}, 415),
            (b"broken", {"Content-Encoding": "gzip"}, 400),
            (gzip.compress(b'{"text": "' + b"a" * (2 << 20) + b'"}'), {"Content-Encoding": "gzip"}, 413),
        ):
            headers = {"Content-Type": "application/json", "X-Request-ID": "one", **changed}
            response = await client.post("/predict", data=content, headers=headers)
            assert (response.status, response.content_type) == (status, "application/problem+json")
            assert response.headers["X-Request-ID"] == "one"

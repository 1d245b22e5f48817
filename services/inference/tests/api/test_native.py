"""Sluice's own routes, on the real app with a scripted engine and a real Valkey."""

import asyncio
import io
import json
from typing import Any

import pytest

from common.runtime import logs

Json = dict[str, Any]


@pytest.fixture
def log_lines(own_logs: None) -> Any:
    """Call it for the log lines so far."""
    stream = io.StringIO()
    logs.configure("inference", log_format="json", stream=stream)

    def written() -> list[Json]:
        logs.flush(60)
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    return written


async def post(client: Any, path: str, body: Any, **headers: str) -> tuple[int, Json]:
    response = await client.post(path, json=body, headers=headers)
    return response.status, await response.json()


async def test_predict__returns_label_scores_model_and_times(start: Any) -> None:
    client = await start()
    status, body = await post(client, "/predict", {"text": "good good film"}, **{"X-Request-ID": "abc"})
    assert status == 200
    timing = body.pop("timing_ms")
    assert body == {
        "label": "POSITIVE",
        "score": 0.75,
        "scores": {"NEGATIVE": 0.25, "POSITIVE": 0.75},
        "model": {"name": "fake", "revision": "r1"},
        "cached": False,
        "truncated": False,
        "request_id": "abc",
    }
    assert timing["total"] >= timing["queue"] + timing["inference"] - 0.01
    _, repeated = await post(client, "/predict", {"text": "good good film"})
    _, long = await post(client, "/predict", {"text": "good " * 100})
    assert (repeated["cached"], repeated["truncated"]) == (True, False)
    assert (long["cached"], long["truncated"]) == (False, True)


async def test_failing_text__is_500_without_text_or_cause(start: Any) -> None:
    status, body = await post(await start(), "/predict", {"text": "poison"})
    assert (status, body["title"]) == (500, "Scoring failed")
    assert "must not be in any message" not in json.dumps(body)
    assert "ValueError" not in json.dumps(body)


async def test_models__describes_the_model(start: Any) -> None:
    client = await start()
    [model] = (await (await client.get("/models")).json())["models"]
    assert (model["name"], model["engine"], model["labels"]) == ("fake", "fake", ["NEGATIVE", "POSITIVE"])
    assert model["limits"] == {"max_tokens": 64, "max_characters": 10_000, "max_texts": 64}
    assert model["known_weaknesses"] == ["irony"]


async def test_specification__states_the_limits_of_texts(start: Any) -> None:
    document = await (await (await start()).get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    text = schemas["PredictRequest"]["properties"]["text"]
    assert (text["minLength"], text["maxLength"], text["pattern"]) == (1, 10_000, r"\S")
    one, several = schemas["ClassificationRequest"]["properties"]["inputs"]["anyOf"]
    assert one["pattern"] == several["items"]["pattern"] == r"\S"
    assert several["maxItems"] == schemas["BatchRequest"]["properties"]["texts"]["maxItems"] == 64


async def test_invalid_body__is_422_with_the_field(start: Any) -> None:
    client = await start()
    for path, body, field in (
        ("/predict", {"text": " \n\t "}, "text"),
        ("/predict", {}, "text"),
        ("/predict", {"text": 7}, "text"),
        ("/predict", {"text": "x" * 10_001}, "text"),
        ("/predict", {"text": "x", "more": 1}, "more"),
        ("/predict", ["x"], ""),
        ("/predict/batch", {"texts": "x"}, "texts"),
    ):
        status, problem = await post(client, path, body)
        [error] = problem["errors"]
        assert (status, error["location"], error["field"]) == (422, "body", field)
        assert "xxxxx" not in json.dumps(problem)


async def test_malformed_request__is_a_problem_and_one_log_line(start: Any, log_lines: Any) -> None:
    client = await start()
    for method, path, content_type, content, status in (
        ("POST", "/predict", "application/json", b"{", 400),
        ("POST", "/predict", "application/json", b'{"text": "\xff\xfe"}', 400),
        ("POST", "/predict", "application/json", b'{"text": "\\ud800"}', 400),
        ("POST", "/predict", "application/json", b'{"text": "' + b"x" * (2 << 20) + b'"}', 413),
        ("POST", "/predict", "text/plain", b"{}", 415),
        ("GET", "/predict", "application/json", b"", 405),
        ("GET", "/nothing", "application/json", b"", 404),
    ):
        before = len(log_lines())
        response = await client.request(
            method, path, data=io.BytesIO(content), headers={"Content-Type": content_type, "Connection": "close"}
        )
        assert (response.status, response.content_type) == (status, "application/problem+json")
        assert (await response.json())["status"] == status
        assert len(log_lines()[before:]) == 1


async def test_nul_and_astral_characters__are_answered_and_recorded(start: Any, recorded: Any) -> None:
    client = await start(events_store_text=True)
    assert (await post(client, "/predict", {"text": "good\0 \U0001f600"}))[0] == 200
    [event] = await recorded(1)
    assert event["text"] == "good␀ \U0001f600"


async def test_answers__are_recorded_once_per_text(start: Any, recorded: Any) -> None:
    client = await start(events_hash_key="key")
    forwarded = {"X-Forwarded-For": "203.0.113.7, 10.0.0.1"}
    await post(client, "/predict", {"text": "good"}, **{"X-Request-ID": "one", **forwarded})
    await post(client, "/predict", {"text": "good"}, **{"X-Request-ID": "two"})
    await post(client, "/predict", {"text": "poison"}, **{"X-Request-ID": "three"})
    await post(client, "/predict/batch", {"texts": ["bad", "good"]}, **{"X-Request-ID": "four"})
    found = await recorded(5)
    assert [(e["request_id"], e["route"], e["outcome"], e.get("label"), e["cached"]) for e in found] == [
        ("one", "/predict", "ok", "POSITIVE", False),
        ("two", "/predict", "ok", "POSITIVE", True),
        ("three", "/predict", "error", None, False),
        ("four", "/predict/batch", "ok", "NEGATIVE", False),
        ("four", "/predict/batch", "ok", "POSITIVE", True),
    ]
    assert len({e["id"] for e in found}) == 5
    assert found[0]["client"] != found[1]["client"] == found[2]["client"]
    assert "203.0.113.7" not in json.dumps(found)


async def test_deadline_passed__is_504_and_counted(start: Any, stage: Any, recorded: Any) -> None:
    client = await start()
    stage.hold()
    status, _ = await post(client, "/predict", {"text": "good"}, **{"X-Request-Timeout-Ms": "20"})
    assert status == 504
    [event] = await recorded(1)
    assert (event["kind"], event["outcome"], event["route"], event["n"]) == ("counter", "timeout", "/predict", 1)


async def test_full_journal__is_503_and_nothing_is_answered(start: Any) -> None:
    client = await start(events_journal_max_bytes=1 << 16, redis_port=1, inference_cache_bytes=0)
    statuses = [(await post(client, "/predict/batch", {"texts": ["good"] * 64}))[0] for _ in range(5)]
    assert (statuses[0], statuses[-1]) == (200, 503)
    assert (await client.get("/v2/health/ready")).status == 503
    response = await client.get("/v1/models/fake")
    assert (response.status, response.headers["Retry-After"]) == (503, "1")


async def test_client_that_disconnects__is_not_scored(start: Any, stage: Any) -> None:
    client = await start()
    stage.hold()
    first = asyncio.create_task(post(client, "/predict", {"text": "first"}))
    await stage.entered()
    metrics = client.service.registry
    leaving = asyncio.create_task(client.post("/predict", json={"text": "one two three"}))
    while not metrics.get_sample_value("sluice_inference_queue_depth"):  # until the server has it
        await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    while metrics.get_sample_value("sluice_inference_queue_depth"):  # until the server noticed
        await asyncio.sleep(0)
    stage.release()
    assert (await first)[0] == 200
    assert [len(text) for batch in stage.batches for text in batch] == [2]


async def test_metrics__count_texts_and_batches(start: Any) -> None:
    client = await start()
    await post(client, "/predict", {"text": "good"})
    await post(client, "/predict/batch", {"texts": ["good", "poison", "bad"]})
    value = client.service.registry.get_sample_value
    sources = ("scored", "cached", "shared", "failed")
    assert [value("sluice_inference_texts_total", {"source": each}) for each in sources] == [2, 1, 0, 1]
    assert value("sluice_inference_batch_size_sum") == 3
    info = {"name": "fake", "revision": "r1", "engine": "fake", "device": "cpu"}
    assert value("sluice_inference_model_info", info) == 1
    for gauge in ("queue_depth", "queue_tokens", "predicted_wait_seconds"):
        assert value(f"sluice_inference_{gauge}") == 0

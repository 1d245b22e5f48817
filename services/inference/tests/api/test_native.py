"""Tests of the HTTP routes, on the real app with a scripted engine and a real Valkey."""

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


async def test_predict__answers_label_scores_model_and_times(start: Any) -> None:
    status, body = await post(await start(), "/predict", {"text": "good good film"}, **{"X-Request-ID": "abc"})
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


async def test_long_text__is_truncated_and_says_so(start: Any) -> None:
    _, body = await post(await start(), "/predict", {"text": "good " * 100})
    assert body["truncated"] is True


async def test_text_asked_before__is_answered_from_the_cache(start: Any) -> None:
    client = await start()
    answers = [(await post(client, "/predict", {"text": "good"}))[1] for _ in range(2)]
    assert [answer["cached"] for answer in answers] == [False, True]


async def test_list__is_answered_in_order_and_poison_fails_alone(start: Any) -> None:
    status, body = await post(await start(), "/predict/batch", {"texts": ["good", "poison", "bad", "good"]})
    assert status == 200
    assert [item.get("label") for item in body["predictions"]] == ["POSITIVE", None, "NEGATIVE", "POSITIVE"]
    assert body["predictions"][1] == {
        "error": {"title": "Scoring failed", "detail": "The model can't score this text; others are not affected."}
    }


async def test_poison_text__is_a_500_that_names_neither_text_nor_cause(start: Any) -> None:
    status, body = await post(await start(), "/predict", {"text": "poison"})
    assert (status, body["title"]) == (500, "Scoring failed")
    assert "must not be in any message" not in json.dumps(body)
    assert "ValueError" not in json.dumps(body)


async def test_models__shows_the_card(start: Any) -> None:
    client = await start()
    body = await (await client.get("/models")).json()
    [model] = body["models"]
    assert (model["name"], model["engine"], model["labels"]) == ("fake", "fake", ["NEGATIVE", "POSITIVE"])
    assert model["limits"] == {"max_tokens": 64, "max_characters": 10_000, "max_texts": 64}
    assert model["known_weaknesses"] == ["irony"]


async def test_specification__lists_the_routes(start: Any) -> None:
    client = await start()
    document = await (await client.get("/openapi.json")).json()
    assert {"/predict", "/predict/batch", "/models", "/models/{model}"} <= set(document["paths"])
    root = "/v2/models/{model}/versions/{version}"
    assert {"/v2", "/v2/health/live", "/v2/health/ready", root, f"{root}/ready", f"{root}/infer"} <= set(
        document["paths"]
    )


async def test_specification__says_that_a_text_is_neither_blank_nor_too_long(start: Any) -> None:
    schemas = (await (await (await start()).get("/openapi.json")).json())["components"]["schemas"]
    text = schemas["PredictRequest"]["properties"]["text"]
    assert (text["minLength"], text["maxLength"], text["pattern"]) == (1, 10_000, r"\S")
    one, several = schemas["ClassificationRequest"]["properties"]["inputs"]["anyOf"]
    assert one["pattern"] == several["items"]["pattern"] == r"\S"
    assert several["maxItems"] == 64


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"text": ""}),
        ("/predict", {"text": " \n\t "}),
        ("/predict", {}),
        ("/predict", {"text": None}),
        ("/predict", {"text": 7}),
        ("/predict", {"text": "x" * 10_001}),
        ("/predict", {"text": "x", "more": 1}),
        ("/predict", ["x"]),
        ("/predict/batch", {"texts": []}),
        ("/predict/batch", {"texts": ["x"] * 65}),
        ("/predict/batch", {"texts": ["x", " "]}),
        ("/predict/batch", {"texts": "x"}),
    ],
)
async def test_body_that_is_json_but_wrong__is_422_naming_the_field(start: Any, path: str, body: Any) -> None:
    status, problem = await post(await start(), path, body)
    assert status == 422
    assert problem["errors"][0]["location"] == "body"
    assert "xxxxx" not in json.dumps(problem)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b'{"text": "\xff\xfe"}', 400),
        (b'{"text": "\\ud800"}', 400),
        (b"", 400),
        (b'{"text": "' + b"x" * (2 << 20) + b'"}', 413),
    ],
)
async def test_malformed_or_huge_body__is_a_problem_and_one_log_line(
    start: Any, content: bytes, status: int, log_lines: Any
) -> None:
    client = await start()
    before = len(log_lines())
    response = await client.post("/predict", data=io.BytesIO(content), headers={"Content-Type": "application/json"})
    assert (response.status, response.content_type) == (status, "application/problem+json")
    assert (await response.json())["status"] == status
    assert len(log_lines()[before:]) == 1


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/nothing", {}, 404),
        ("GET", "/predict", {}, 405),
        ("POST", "/predict", {"Content-Type": "text/plain"}, 415),
    ],
)
async def test_wrong_route_method_or_type__is_a_problem_and_one_log_line(
    start: Any, method: str, path: str, headers: dict[str, str], status: int, log_lines: Any
) -> None:
    client = await start()
    before = len(log_lines())
    response = await client.request(method, path, data=b"{}", headers=headers)
    assert (response.status, response.content_type) == (status, "application/problem+json")
    assert len(log_lines()[before:]) == 1


async def test_text_with_nul_and_astral_characters__is_answered_and_recorded(start: Any, recorded: Any) -> None:
    client = await start(events_store_text=True)
    status, _ = await post(client, "/predict", {"text": "good\0 \U0001f600"})
    assert status == 200
    [event] = await recorded(1)
    assert event["text"] == "good␀ \U0001f600"


async def test_every_answer__is_on_record(start: Any, recorded: Any) -> None:
    """Scored, cached and failed ones; a list writes one event per text."""
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


async def test_overload__is_503_at_once_with_the_time_to_retry_and_is_counted(
    start: Any, stage: Any, recorded: Any, recorded_refusals: Any
) -> None:
    client = await start(inference_max_wait_s=1e-9)
    stage.hold()
    first = asyncio.create_task(post(client, "/predict", {"text": "good"}))
    await stage.entered()
    for _ in range(3):
        response = await client.post("/predict", json={"text": "bad"})
        assert (response.status, response.content_type) == (503, "application/problem+json")
        assert int(response.headers["Retry-After"]) >= 1
    stage.release()
    assert (await first)[0] == 200
    assert await recorded_refusals(3) == {("/predict", "unavailable"): 3}
    found: list[Json] = []
    while not (predictions := [event for event in found if event["kind"] == "prediction"]):
        found = await recorded(len(found) + 1)
    assert [prediction["outcome"] for prediction in predictions] == ["ok"]


async def test_deadline_passed__is_504_and_is_counted(start: Any, stage: Any, recorded: Any) -> None:
    client = await start()
    stage.hold()
    status, _ = await post(client, "/predict", {"text": "good"}, **{"X-Request-Timeout-Ms": "20"})
    assert status == 504
    [event] = await recorded(1)
    assert (event["kind"], event["outcome"], event["route"], event["n"]) == ("counter", "timeout", "/predict", 1)


async def test_full_journal__is_503_and_nothing_is_answered(start: Any) -> None:
    client = await start(events_journal_max_bytes=1 << 16, redis_port=1, inference_cache_bytes=0)
    statuses = [(await post(client, "/predict/batch", {"texts": ["good"] * 64}))[0] for _ in range(5)]
    assert statuses[0] == 200
    assert statuses[-1] == 503
    assert (await client.get("/v2/health/ready")).status == 503


async def test_client_that_leaves__is_not_scored(start: Any, stage: Any) -> None:
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


async def test_metrics__count_texts_batches_and_refusals(start: Any) -> None:
    client = await start()
    await post(client, "/predict", {"text": "good"})
    await post(client, "/predict/batch", {"texts": ["good", "poison", "bad"]})
    value = client.service.registry.get_sample_value
    sources = {
        s: value("sluice_inference_texts_total", {"source": s}) for s in ("scored", "cached", "shared", "failed")
    }
    assert sources == {"scored": 2, "cached": 1, "shared": 0, "failed": 1}
    assert value("sluice_inference_batch_size_sum") == 3
    assert value("sluice_inference_tokenise_seconds_count") == 1  # what was bisected does not tell
    assert value("sluice_inference_padded_tokens_total") == value("sluice_inference_batch_tokens_sum") == 4
    info = {"name": "fake", "revision": "r1", "engine": "fake", "device": "cpu"}
    assert value("sluice_inference_model_info", info) == 1
    for gauge in ("queue_depth", "queue_tokens", "queue_age_seconds", "predicted_wait_seconds"):
        assert value(f"sluice_inference_{gauge}") == 0

"""KServe's V1 protocol, on the real app with a scripted engine."""

from typing import Any

import pytest

PREDICT = "/v1/models/fake:predict"


async def test_instances__are_answered_item_by_item(start: Any, recorded: Any) -> None:
    body = {"instances": ["good good", "", "poison", "bad", "x" * 10_001], "parameters": {"any": 1}}
    response = await (await start()).post(PREDICT, json=body)
    assert response.status == 200
    found = (await response.json())["predictions"]
    assert found[0] == {
        "label": "POSITIVE",
        "score": 0.75,
        "scores": {"NEGATIVE": 0.25, "POSITIVE": 0.75},
        "cached": False,
        "truncated": False,
    }
    assert found[1] == {"error": {"title": "Invalid text", "detail": "The text is blank."}}
    assert [item.get("label", item.get("error", {}).get("title")) for item in found[2:]] == [
        "Scoring failed",
        "NEGATIVE",
        "Invalid text",
    ]
    assert {event["route"] for event in await recorded(3)} == {"/v1/models/{model}:predict"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (PREDICT, {"instances": []}, 422),
        (PREDICT, {"instances": ["x"] * 65}, 422),
        (PREDICT, {"instances": [{"text": "x"}]}, 422),
        (PREDICT, {"inputs": ["x"]}, 422),
        ("/v1/models/other:predict", {"instances": ["x"]}, 404),
        ("/v1/models/fake:explain", {"instances": ["x"]}, 405),
    ],
)
async def test_invalid_request__is_refused(start: Any, path: str, body: Any, status: int) -> None:
    assert (await (await start()).post(path, json=body)).status == status


async def test_models__are_listed_for_kserve_and_openai(start: Any, stage: Any) -> None:
    client = await start()
    entry = {"id": "fake", "object": "model", "created": 0, "owned_by": "sluice"}
    listed = await (await client.get("/v1/models")).json()
    assert listed == {"models": ["fake"], "object": "list", "data": [entry]}
    state = await (await client.get("/v1/models/fake")).json()
    assert state == {"name": "fake", "ready": True, **entry}
    assert (await client.get("/v1/models/other")).status == 404


async def test_model_state__is_503_with_a_full_journal(start: Any) -> None:
    client = await start(events_journal_max_bytes=1 << 16, redis_port=1, inference_cache_bytes=0)
    body = {"instances": ["good"] * 64}
    while (await client.post(PREDICT, json=body)).status == 200:
        pass
    response = await client.get("/v1/models/fake")
    assert (response.status, response.headers["Retry-After"]) == (503, "1")

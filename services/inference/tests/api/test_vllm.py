"""vLLM's classification API, on the real app with a scripted engine."""

import time
from typing import Any

import pytest


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
async def test_texts__are_answered_in_vllms_schema(start: Any, recorded: Any, path: str) -> None:
    client = await start()
    body = {"model": "fake", "input": ["good good film", "bad"], "truncate_prompt_tokens": -1}
    response = await client.post(path, json=body, headers={"X-Request-ID": "one"})
    answer = await response.json()
    assert response.status == 200
    assert time.time() - 60 < answer.pop("created") <= time.time()
    assert answer == {
        "id": "classify-one",
        "object": "list",
        "model": "fake",
        "data": [
            {"index": 0, "label": "POSITIVE", "probs": [0.25, 0.75], "num_classes": 2},
            {"index": 1, "label": "NEGATIVE", "probs": pytest.approx([2 / 3, 1 / 3]), "num_classes": 2},
        ],
        "usage": {"prompt_tokens": 6, "total_tokens": 6, "completion_tokens": 0, "prompt_tokens_details": None},
    }
    assert [event["route"] for event in await recorded(2)] == [path] * 2


async def test_single_text_without_a_model__is_answered(start: Any) -> None:
    response = await (await start()).post("/classify", json={"input": "good"})
    assert [item["label"] for item in (await response.json())["data"]] == ["POSITIVE"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"input": ["good", ""]}, 422, "input.1"),
        ({"input": ["good", "x" * 10_001]}, 422, "input.1"),
        ({"input": [1, 2, 3]}, 422, "input.0"),
        ({"messages": [{"role": "user", "content": "good"}]}, 422, "input"),
        ({"input": "good", "use_activation": False}, 422, "use_activation"),
        ({"input": "good", "model": "other"}, 404, None),
        ({"input": ["good", "poison"]}, 500, None),
    ],
)
async def test_request_that_cannot_be_answered__is_refused(start: Any, body: Any, status: int, field: Any) -> None:
    response = await (await start()).post("/classify", json=body)
    problem = await response.json()
    assert response.status == status
    assert [error["field"] for error in problem.get("errors", ())][:1] == ([field] if field else [])

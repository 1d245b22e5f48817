"""vLLM's classification API, on the real app with a scripted engine."""

import time
from typing import Any

import pytest


async def test_texts__are_answered_in_vllms_schema(start: Any) -> None:
    client = await start()
    body = {"model": "fake", "input": ["good good film", "bad"], "truncate_prompt_tokens": -1}
    response = await client.post("/classify", json=body, headers={"X-Request-ID": "one"})
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


async def test_request__needs_a_text_and_the_served_model(start: Any) -> None:
    client = await start()
    for body, status in (
        ({"input": "good"}, 200),
        ({"input": "good", "model": "other"}, 404),
        ({"input": "good", "use_activation": False}, 422),
        ({"messages": [{"role": "user", "content": "good"}]}, 422),
    ):
        assert (await client.post("/v1/classify", json=body)).status == status

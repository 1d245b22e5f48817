"""The Hugging Face shape, on the real app with a scripted engine. tests/ has the real client."""

from dataclasses import replace
from typing import Any

URL = "/models/fake"


async def test_texts__are_answered_with_the_best_label_first(start: Any) -> None:
    client = await start()
    response = await client.post(URL, json={"inputs": "bad bad film", "options": {"wait_for_model": True}})
    assert await response.json() == [[{"label": "NEGATIVE", "score": 0.75}, {"label": "POSITIVE", "score": 0.25}]]
    response = await client.post(URL, json={"inputs": ["good good", "bad bad"], "parameters": {"top_k": 1}})
    labels = [[each["label"] for each in text] for text in await response.json()]
    assert labels == [["POSITIVE"], ["NEGATIVE"]]


async def test_parameters__are_checked(start: Any, stage: Any) -> None:
    stage.card = replace(stage.card, activation="sigmoid")
    client = await start()
    for name, value, status in (
        ("top_k", 0, 422),
        ("function_to_apply", "softmax", 422),  # not the model's own
        ("function_to_apply", "sigmoid", 200),
        ("unknown", 1, 422),
    ):
        response = await client.post(URL, json={"inputs": "good", "parameters": {name: value}})
        assert response.status == status
        if status == 422:
            assert (await response.json())["errors"][0]["field"] == f"parameters.{name}"

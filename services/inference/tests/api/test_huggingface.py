"""The Hugging Face shape, on the real app with a scripted engine. tests/ has the real client."""

from dataclasses import replace
from typing import Any

import pytest

NEGATIVE_FIRST = [{"label": "NEGATIVE", "score": 0.75}, {"label": "POSITIVE", "score": 0.25}]


async def post(client: Any, body: Any, model: str = "fake") -> tuple[int, Any]:
    response = await client.post(f"/models/{model}", json=body)
    return response.status, await response.json()


async def test_texts__are_answered_with_the_best_label_first(start: Any, recorded: Any) -> None:
    client = await start()
    assert await post(client, {"inputs": "bad bad film", "options": {"wait_for_model": True}}) == (
        200,
        [NEGATIVE_FIRST],
    )
    status, body = await post(client, {"inputs": ["good good", "bad bad"], "parameters": {"top_k": 1}})
    assert (status, [[each["label"] for each in text] for text in body]) == (200, [["POSITIVE"], ["NEGATIVE"]])
    assert [event["route"] for event in await recorded(3)] == ["/models/{model}"] * 3


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "inputs"),
        ({"inputs": ""}, "inputs.0"),
        ({"inputs": ["good", " "]}, "inputs.1"),
        ({"inputs": ["good", "x" * 10_001]}, "inputs.1"),
        ({"inputs": []}, "inputs"),
        ({"inputs": ["good", 7]}, "inputs.1"),
        ({"inputs": ["good"] * 65}, "inputs"),
        ({"inputs": "good", "parameters": {"top_k": 0}}, "parameters.top_k"),
        ({"inputs": "good", "parameters": {"function_to_apply": "sigmoid"}}, "parameters.function_to_apply"),
        ({"inputs": "good", "parameters": {"unknown": 1}}, "parameters.unknown"),
    ],
)
async def test_invalid_request__is_422_with_the_field(start: Any, body: Any, field: str) -> None:
    status, problem = await post(await start(), body)
    assert (status, problem["errors"][0]["field"]) == (422, field)


async def test_function_to_apply__must_be_the_models_own(start: Any, stage: Any) -> None:
    stage.card = replace(stage.card, activation="sigmoid")
    client = await start()
    for function, expected in (("sigmoid", 200), ("softmax", 422)):
        body = {"inputs": "good", "parameters": {"function_to_apply": function}}
        assert (await post(client, body))[0] == expected


async def test_other_model_and_failing_text__fail_the_request(start: Any) -> None:
    client = await start()
    assert (await post(client, {"inputs": "good"}, "other"))[0] == 404
    assert (await post(client, {"inputs": ["good", "poison"]}))[0] == 500

"""Tests of the Hugging Face shape, on the real app with a scripted engine; the real client is in tests/."""

from dataclasses import replace
from typing import Any

import pytest

URL = "/models/fake"
NEGATIVE_FIRST = [{"label": "NEGATIVE", "score": 0.75}, {"label": "POSITIVE", "score": 0.25}]


async def post(client: Any, body: Any, url: str = URL) -> tuple[int, Any]:
    response = await client.post(url, json=body)
    return response.status, await response.json()


async def test_one_text__is_a_list_of_its_labels_the_best_first(start: Any) -> None:
    assert await post(await start(), {"inputs": "bad bad film"}) == (200, [NEGATIVE_FIRST])


async def test_list__is_one_list_per_text_in_order(start: Any) -> None:
    status, body = await post(await start(), {"inputs": ["good good", "bad bad"]})
    assert status == 200
    assert [text[0]["label"] for text in body] == ["POSITIVE", "NEGATIVE"]


async def test_top_k__leaves_the_best(start: Any) -> None:
    client = await start()
    assert await post(client, {"inputs": "bad bad", "parameters": {"top_k": 1}}) == (200, [NEGATIVE_FIRST[:1]])
    assert await post(client, {"inputs": "bad bad", "parameters": {"top_k": 9}}) == (200, [NEGATIVE_FIRST])


async def test_options_of_older_clients__mean_nothing(start: Any) -> None:
    status, _ = await post(await start(), {"inputs": "good", "options": {"wait_for_model": True}})
    assert status == 200


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"inputs": ""},
        {"inputs": []},
        {"inputs": ["good", 7]},
        {"inputs": ["good"] * 65},
        {"inputs": "good", "parameters": {"top_k": 0}},
        {"inputs": "good", "parameters": {"function_to_apply": "sigmoid"}},
        {"inputs": "good", "parameters": {"function_to_apply": "none"}},
        {"inputs": "good", "parameters": {"unknown": 1}},
    ],
)
async def test_what_cannot_be_done__is_422(start: Any, body: Any) -> None:
    status, problem = await post(await start(), body)
    assert status == 422
    assert problem["errors"]


async def test_function_to_apply__can_only_be_the_models_own(start: Any, stage: Any) -> None:
    stage.card = replace(stage.card, activation="sigmoid")
    client = await start()
    for function, expected in (("sigmoid", 200), ("softmax", 422)):
        body = {"inputs": "good", "parameters": {"function_to_apply": function}}
        assert (await post(client, body))[0] == expected


async def test_another_model__is_404(start: Any) -> None:
    assert (await post(await start(), {"inputs": "good"}, "/models/other"))[0] == 404


async def test_poison__fails_the_request(start: Any) -> None:
    assert (await post(await start(), {"inputs": ["good", "poison"]}))[0] == 500


async def test_answers__are_on_record(start: Any, recorded: Any) -> None:
    await post(await start(), {"inputs": ["good", "bad"]})
    assert [(event["route"], event["label"]) for event in await recorded(2)] == [
        ("/models/{model}", "POSITIVE"),
        ("/models/{model}", "NEGATIVE"),
    ]

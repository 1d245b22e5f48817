"""OpenAI's moderation API, on the real app with a scripted engine. tests/ has the real client."""

from typing import Any

import pytest

from common.runtime.settings import StartError
from common.service import serve
from inference.app import create_service
from inference.settings import InferenceSettings

URL = "/v1/moderations"


async def test_texts__are_flagged_by_the_chosen_labels(start: Any) -> None:
    client = await start(inference_moderation_labels=" NEGATIVE ,", inference_moderation_threshold=0.7)
    body = {"model": "omni-moderation-latest", "input": ["bad bad", "bad", "good good"]}
    answer = await (await client.post(URL, json=body, headers={"X-Request-ID": "one"})).json()
    assert (answer["id"], answer["model"]) == ("modr-one", "fake")
    assert answer["results"][0] == {
        "flagged": True,
        "categories": {"NEGATIVE": True, "POSITIVE": False},
        "category_scores": {"NEGATIVE": 0.75, "POSITIVE": 0.25},
        "category_applied_input_types": {"NEGATIVE": ["text"], "POSITIVE": ["text"]},
    }
    assert [result["flagged"] for result in answer["results"]] == [True, False, False]


async def test_invalid_item__has_openais_error_too(start: Any) -> None:
    client = await start(inference_moderation_labels="NEGATIVE")
    problem = await (await client.post(URL, json={"input": ["good", {"type": "image_url"}]})).json()
    assert problem["errors"][0]["field"] == "input.1"
    assert problem["error"]["type"] == "invalid_request_error"
    assert problem["error"]["message"].startswith("input.1: ")


async def test_no_chosen_label__is_404_with_the_cure(start: Any) -> None:
    response = await (await start()).post(URL, json={"input": "good"})
    problem = await response.json()
    assert response.status == 404
    assert "INFERENCE_MODERATION_LABELS" in problem["detail"] == problem["error"]["message"]


async def test_unknown_label__stops_the_start(settings: dict[str, Any], stage: Any) -> None:
    service = create_service(InferenceSettings(**settings, inference_moderation_labels="toxic,NEGATIVE"), stage.plan)
    with pytest.raises(StartError, match="has no label toxic; its labels are NEGATIVE, POSITIVE"):
        await serve(service)

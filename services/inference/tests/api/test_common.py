"""What the protocols share: they check texts alike, and record each under the route of its protocol."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import pytest


def open_inference(texts: list[Any]) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": texts}]}


Protocol = tuple[str, str, Callable[[list[Any]], Any]]
# path: route, field of the texts, body
ALL_OR_NONE: Final[dict[str, Protocol]] = {  # an answer has no place for the error of one text
    "/models/fake": ("/models/{model}", "inputs", lambda texts: {"inputs": texts}),
    "/classify": ("/classify", "input", lambda texts: {"input": texts}),
    "/v1/classify": ("/v1/classify", "input", lambda texts: {"input": texts, "model": "fake"}),
    "/v1/moderations": ("/v1/moderations", "input", lambda texts: {"input": texts}),
    "/v2/models/fake/infer": ("/v2/models/{model}/infer", "inputs.0.data", open_inference),
}
EACH: Final[dict[str, Protocol]] = {
    "/predict/batch": ("/predict/batch", "texts", lambda texts: {"texts": texts}),
    "/v1/models/fake:predict": ("/v1/models/{model}:predict", "instances", lambda texts: {"instances": texts}),
}
protocols = pytest.mark.parametrize("path", [*ALL_OR_NONE, *EACH])
all_or_none = pytest.mark.parametrize("path", ALL_OR_NONE)
each = pytest.mark.parametrize("path", EACH)
Send = Callable[..., Any]


@pytest.fixture
async def send(start: Any, path: str) -> Send:
    """Call it with texts for the status and the body of the protocol's answer."""
    client = await start(inference_moderation_labels="NEGATIVE")
    _, _, body = (ALL_OR_NONE | EACH)[path]

    async def sent(texts: list[Any], path: str = path) -> tuple[int, Any]:
        response = await client.post(path, json=body(texts))
        return response.status, await response.json()

    return sent


@protocols
async def test_list_that_is_no_list_of_texts__is_refused_with_the_position(send: Send, path: str) -> None:
    _, field, _ = (ALL_OR_NONE | EACH)[path]
    for texts, place in (([], field), (["good"] * 65, field), (["good", 7], f"{field}.1")):
        status, answer = await send(texts)
        assert status == (400 if path.startswith("/v2/") else 422)
        assert f"{place}: " in answer["error"] if status == 400 else answer["errors"][0]["field"] == place


@all_or_none
async def test_invalid_text__is_refused_with_its_position_and_not_echoed(send: Send, path: str) -> None:
    _, field, _ = ALL_OR_NONE[path]
    for text, message in ((" \n", "The text is blank."), ("x" * 10_001, "The text has 10,001 characters")):
        status, answer = await send(["good", text])
        assert status == (400 if path.startswith("/v2/") else 422)
        assert message in json.dumps(answer)
        assert f"{field}.1" in json.dumps(answer)
        assert "xxxx" not in json.dumps(answer)


@all_or_none
async def test_list_that_fails_as_a_whole__is_recorded_as_failed(send: Send, recorded: Any, path: str) -> None:
    status, answer = await send(["good", "poison"])
    assert status == 500
    assert "ValueError" not in json.dumps(answer)
    assert "must not be in any message" not in json.dumps(answer)
    route, _, _ = ALL_OR_NONE[path]
    assert [(event["route"], event["outcome"], event.get("label")) for event in await recorded(2)] == [
        (route, "error", None),
        (route, "error", None),
    ]


@each
async def test_invalid_and_failing_texts__have_errors_in_their_places(send: Send, recorded: Any, path: str) -> None:
    status, answer = await send(["good good", "poison", "bad", "", " \n", "x" * 10_001, "good good"])
    assert status == 200
    good = {"label": "POSITIVE", "score": 0.75, "scores": {"NEGATIVE": 0.25, "POSITIVE": 0.75}}
    flags = {"cached": False, "truncated": False}
    blank = {"title": "Invalid text", "detail": "The text is blank."}
    found = answer["predictions"]
    assert found[0] == found[6] == good | flags
    assert found[2]["label"] == "NEGATIVE"
    assert [found[place]["error"] for place in (1, 3, 4, 5)] == [
        {"title": "Scoring failed", "detail": "The model cannot score this text. Other texts are not affected."},
        blank,
        blank,
        {"title": "Invalid text", "detail": "The text has 10,001 characters; at most 10,000 are accepted."},
    ]
    route, _, _ = EACH[path]
    events = Counter((event["route"], event["outcome"]) for event in await recorded(4))
    assert events == {(route, "ok"): 3, (route, "error"): 1}
    assert (await send([""]))[1]["predictions"] == [{"error": blank}]


@pytest.mark.parametrize("path", [path for path in ALL_OR_NONE | EACH if "fake" in path])
async def test_other_model__is_404(send: Send, path: str) -> None:
    status, answer = await send(["good"], path.replace("fake", "other"))
    assert status == 404
    assert "GET /models" in json.dumps(answer)

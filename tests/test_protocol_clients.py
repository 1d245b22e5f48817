"""Existing clients through the edge: Hugging Face's, Triton's, and plain calls by the schemas of KServe V1 and vLLM."""

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import aiohttp
import numpy as np
import pytest
import tritonclient.http as triton
from huggingface_hub import InferenceClient
from system import System

TEXTS = ["A thoughtful, moving film.", "A dull and lifeless mess.", "Über den Film: 👍"]
LABELS = ["POSITIVE", "NEGATIVE"]


@pytest.fixture(scope="module")
def model(system: System) -> dict[str, Any]:
    """Return the card of the served model."""

    async def card() -> dict[str, Any]:
        async with aiohttp.ClientSession(system.url) as session, session.get("/models") as response:
            found: dict[str, Any] = (await response.json())["models"][0]
            return found

    return asyncio.run(card())


@pytest.fixture
def client(system: System) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(system.url.removeprefix("http://")) as client:
        yield client


def from_address(address: str) -> dict[str, str]:
    """Return headers with a client `address` and a new request id.

    Pass a copy to Triton's client, because it adds its headers to the dict.
    """
    return {"X-Forwarded-For": address, "X-Request-ID": f"client-{uuid.uuid4()}"}


def text_input(texts: list[str], *, binary_data: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=np.object_), binary_data)
    return tensor


def hugging_face(system: System, model: dict[str, Any], headers: dict[str, str]) -> InferenceClient:
    return InferenceClient(model=f"{system.url}/models/{model['name']}", headers=headers, token="unused")


def recorded(system: System, headers: dict[str, str], expected: int) -> list[tuple[str, str]]:
    """Return (route, label) of each event of a request, once there are `expected`."""

    async def rows() -> list[tuple[str, str]]:
        connection = await system.database()
        try:
            async with asyncio.timeout(60):
                while True:
                    found = await connection.fetch(
                        "SELECT route, label FROM metrics.prediction WHERE request_id = $1", headers["X-Request-ID"]
                    )
                    if len(found) >= expected:
                        return [tuple(row) for row in found]
                    await asyncio.sleep(0.05)
        finally:
            await connection.close()

    return asyncio.run(rows())


def remaining(system: System, headers: dict[str, str]) -> int:
    """Return the units left to an address after one more request."""

    async def ask() -> int:
        async with aiohttp.ClientSession(system.url, headers=headers) as session:
            async with session.post("/predict", json={"text": "fine"}) as response:
                return int(response.headers["RateLimit"].partition(";r=")[2].partition(";")[0])

    return asyncio.run(ask())


def test_inference_client__reads_labels_best_first(system: System, model: dict[str, Any]) -> None:
    headers = from_address("203.0.113.1")
    found = hugging_face(system, model, headers).text_classification(TEXTS[0])
    assert [each.label for each in found] == LABELS
    assert found[0].score > found[1].score
    assert sum(each.score for each in found) == pytest.approx(1)
    [best] = hugging_face(system, model, from_address("203.0.113.1")).text_classification(TEXTS[1], top_k=1)
    assert best.label == "NEGATIVE"
    assert recorded(system, headers, 1) == [("/models/{model}", "POSITIVE")]


def test_triton_client__finds_server_and_model_ready(
    client: triton.InferenceServerClient, model: dict[str, Any]
) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model["name"])
    assert client.is_model_ready(model["name"], model["revision"])
    assert not client.is_model_ready("another")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    described = client.get_model_metadata(model["name"])
    assert described["versions"] == [model["revision"]]
    assert [tensor["name"] for tensor in described["outputs"]] == ["label", "score", "scores"]


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_triton_client__reads_the_results_of_a_list(
    system: System,
    client: triton.InferenceServerClient,
    model: dict[str, Any],
    is_binary: bool,
) -> None:
    headers = from_address("203.0.113.2")
    found = client.infer(
        model["name"],
        [text_input(TEXTS, binary_data=is_binary)],
        outputs=[triton.InferRequestedOutput(name, binary_data=is_binary) for name in ("label", "score", "scores")],
        headers=dict(headers),
        request_id="mine",
    )
    labels = [label.decode() if isinstance(label, bytes) else label for label in found.as_numpy("label")]
    assert labels[:2] == LABELS
    np.testing.assert_allclose(found.as_numpy("scores").max(axis=1), found.as_numpy("score"), atol=1e-6)
    assert found.get_response()["id"] == "mine"
    assert len(recorded(system, headers, 3)) == 3


def test_triton_client__names_a_version_and_no_outputs(
    client: triton.InferenceServerClient, model: dict[str, Any]
) -> None:
    found = client.infer(
        model["name"], [text_input(TEXTS[:1])], model_version=model["revision"], headers=from_address("203.0.113.3")
    )
    assert found.as_numpy("label").tolist() == [b"POSITIVE"]
    assert found.as_numpy("scores").shape == (1, 2)


def test_triton_client__raises_its_errors(client: triton.InferenceServerClient, model: dict[str, Any]) -> None:
    with pytest.raises(triton.InferenceServerException, match="text is blank"):
        client.infer(model["name"], [text_input([" "])], headers=from_address("203.0.113.4"))
    with pytest.raises(triton.InferenceServerException, match="No such model"):
        client.infer("another", [text_input(TEXTS)], headers=from_address("203.0.113.4"))


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "json"])
def test_list_of_a_triton_client__costs_one_per_text(
    system: System, client: triton.InferenceServerClient, model: dict[str, Any], is_binary: bool
) -> None:
    headers = from_address("203.0.113.5" if is_binary else "203.0.113.6")
    client.infer(model["name"], [text_input(TEXTS * 10, binary_data=is_binary)], headers=dict(headers))
    assert remaining(system, headers) == 60 - 30 - 1


def test_list_of_hugging_faces_client__costs_one_per_text(system: System, model: dict[str, Any]) -> None:
    headers = from_address("203.0.113.7")
    texts: Any = TEXTS * 10  # servers of this task take lists, though the client's signature names one text
    hugging_face(system, model, headers).text_classification(texts)
    assert remaining(system, headers) == 60 - 30 - 1


def test_clients_above_the_limit__get_429(
    system: System, client: triton.InferenceServerClient, model: dict[str, Any]
) -> None:
    headers = from_address("203.0.113.8")
    client.infer(model["name"], [text_input(TEXTS * 20, binary_data=False)], headers=dict(headers))
    with pytest.raises(triton.InferenceServerException, match=r"^\[429\] At most 60 in any 60 s\.") as refused:
        client.infer(model["name"], [text_input(TEXTS[:1])], headers=dict(headers))
    assert refused.value.status() == "429"
    with pytest.raises(Exception, match="429"):
        hugging_face(system, model, headers).text_classification(TEXTS[0])


def call(system: System, path: str, body: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
    async def post() -> tuple[int, Any]:
        async with aiohttp.ClientSession(system.url, headers=headers) as session:
            async with session.post(path, json=body) as response:
                return response.status, await response.json()

    return asyncio.run(post())


def test_kserve_v1__answers_item_by_item_and_costs_one_per_instance(system: System, model: dict[str, Any]) -> None:
    headers = from_address("203.0.113.9")
    status, body = call(
        system, f"/v1/models/{model['name']}:predict", {"instances": [*TEXTS, "", "x" * 10_001]}, headers
    )
    assert status == 200
    assert [item.get("label") for item in body["predictions"][:2]] == LABELS
    assert [sorted(item) for item in body["predictions"][3:]] == [["error"]] * 2
    assert len(recorded(system, headers, 3)) == 3
    assert remaining(system, headers) == 60 - 5 - 1


def test_escaped_colon_of_kserve_v1__costs_one_per_instance_too(system: System, model: dict[str, Any]) -> None:
    headers = from_address("203.0.113.10")
    call(system, f"/v1/models/{model['name']}%3Apredict", {"instances": TEXTS}, headers)
    assert remaining(system, headers) == 60 - 3 - 1


@pytest.mark.parametrize("path", ["/classify", "/v1/classify"])
def test_vllm__answers_in_its_schema_and_costs_one_per_text(system: System, model: dict[str, Any], path: str) -> None:
    headers = from_address("203.0.113.11" if path == "/classify" else "203.0.113.12")
    status, body = call(system, path, {"model": model["name"], "input": TEXTS}, headers)
    assert status == 200
    assert set(body) == {"id", "object", "created", "model", "data", "usage"}
    assert body["id"] == f"classify-{headers['X-Request-ID']}"
    for index, item in enumerate(body["data"]):
        assert (item["index"], item["num_classes"]) == (index, 2)
        assert item["label"] == model["labels"][item["probs"].index(max(item["probs"]))]
    assert [item["label"] for item in body["data"][:2]] == LABELS
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0
    assert recorded(system, headers, 3)[0][0] == path
    assert remaining(system, headers) == 60 - 3 - 1

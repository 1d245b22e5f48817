"""The Open Inference Protocol, on the real app with a scripted engine. tests/ has the real client."""

import asyncio
import json
import struct
from typing import Any

import pytest

Json = dict[str, Any]
INFER = "/v2/models/fake/infer"
LENGTH = "Inference-Header-Content-Length"
HEALTH = ("/v2/health/ready", "/v2/models/fake/ready", "/v2/models/fake/versions/r1/ready")


def document(*texts: Any, **more: Any) -> Json:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}], **more}


def binary(*texts: bytes, **more: Any) -> tuple[bytes, bytes]:
    """Return a request's JSON and the tensor's bytes."""
    tail = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    tensor = {
        "name": "text",
        "datatype": "BYTES",
        "shape": [len(texts)],
        "parameters": {"binary_data_size": len(tail)},
    }
    return json.dumps({"inputs": [tensor], **more}).encode(), tail


async def infer(client: Any, body: Any, path: str = INFER) -> tuple[int, Json]:
    response = await client.post(path, json=body)
    return response.status, await response.json()


async def test_texts__are_answered_with_label_score_and_scores(start: Any) -> None:
    status, body = await infer(await start(), document("good good", "bad", id="seven"))
    assert status == 200
    assert body == {
        "model_name": "fake",
        "model_version": "r1",
        "id": "seven",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["POSITIVE", "NEGATIVE"]},
            {"name": "score", "datatype": "FP32", "shape": [2], "data": [0.75, pytest.approx(2 / 3)]},
            {
                "name": "scores",
                "datatype": "FP32",
                "shape": [2, 2],
                "data": pytest.approx([0.25, 0.75, 2 / 3, 1 / 3]),
            },
        ],
    }


async def test_nested_data_version_and_requested_outputs__are_accepted(start: Any) -> None:
    body = document("good", "bad", outputs=[{"name": "score"}, {"name": "label", "parameters": {"binary_data": False}}])
    body["inputs"][0] |= {"shape": [2, 1], "data": [["good"], ["bad"]]}
    status, answer = await infer(await start(), body, "/v2/models/fake/versions/r1/infer")
    assert (status, [output["name"] for output in answer["outputs"]]) == (200, ["score", "label"])
    assert answer["outputs"][1]["data"] == ["POSITIVE", "NEGATIVE"]


async def test_binary_data__is_read_and_written(start: Any) -> None:
    head, tail = binary(b"good good", "bad \N{PILE OF POO}".encode(), parameters={"binary_data_output": True})
    response = await (await start()).post(INFER, data=head + tail, headers={LENGTH: str(len(head))})
    body = await response.read()
    assert (response.status, response.content_type) == (200, "application/octet-stream")
    length = int(response.headers[LENGTH])
    sizes = [each["parameters"]["binary_data_size"] for each in json.loads(body[:length])["outputs"]]
    assert sizes == [24, 8, 16]
    assert body[length : length + 24] == b"\x08\0\0\0POSITIVE\x08\0\0\0NEGATIVE"
    assert struct.unpack("<6f", body[length + 24 :]) == pytest.approx([0.75, 2 / 3, 0.25, 0.75, 2 / 3, 1 / 3])


TENSOR = document("good")["inputs"][0]


async def test_invalid_request__is_400_with_the_position(start: Any) -> None:
    client = await start()
    for body, error in (
        ([], "Input should be"),
        ({}, "inputs: Field required"),
        ({"inputs": [TENSOR] * 2}, "inputs: List should have at most 1"),
        ({"inputs": [TENSOR | {"data": [[["good"]]]}]}, "inputs.0.data.0: Input should be a valid string"),
        ({"inputs": [TENSOR | {"datatype": "FP32"}]}, "inputs.0.datatype: Input should be"),
        ({"inputs": [TENSOR | {"name": "words"}]}, "inputs.0.name: Input should be"),
        ({"inputs": [TENSOR | {"shape": [2]}]}, "shape does not match its 1 texts"),
        ({"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}]}, "either data, or binary_data_size"),
        (document("good", outputs=[{"name": "logits"}]), "outputs.0.name: Input should be"),
        (document("good", outputs=[{"name": "label"}] * 4), "outputs: List should have at most 3"),
        (document("good", outputs=[{"name": "label", "parameters": {"classification": 1}}]), "classification: Extra"),
    ):
        status, answer = await infer(client, body)
        assert (status, list(answer)) == (400, ["error"])
        assert error in answer["error"]


async def test_malformed_binary_data__is_400(start: Any) -> None:
    client = await start()
    for tail, size, length in (
        (b"\x05\0\0\0good", 8, None),
        (b"\x04\0\0", 3, None),
        (b"\x02\0\0\0\xff\xfe", 6, None),
        (b"\xff\xff\xff\xffgood", 8, None),
        (b"\x04\0\0\0good", 7, None),
        (b"\x04\0\0\0good", 9, None),
        *((b"\x04\0\0\0good", 8, length) for length in ("-1", "x", "999999", "٣", "")),
    ):
        tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [tensor]}).encode()
        headers = {LENGTH: str(len(head)) if length is None else length}
        response = await client.post(INFER, data=head + tail, headers=headers)
        assert (response.status, list(await response.json())) == (400, ["error"])


async def test_failure__has_the_protocols_shape(start: Any) -> None:
    client = await start()
    for path, expected in (("/v2/models/fake/versions/r2/infer", 404), ("/v2/nothing", 404), ("/v2", 405)):
        status, answer = await infer(client, document("good"), path)
        assert (status, list(answer)) == (expected, ["error"])


async def test_metadata__describes_server_and_model(start: Any) -> None:
    client = await start()
    assert "binary_tensor_data" in (await (await client.get("/v2")).json())["extensions"]
    model = await (await client.get("/v2/models/fake")).json()
    assert (model["name"], model["versions"]) == ("fake", ["r1"])
    assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in model["outputs"]] == ["label", "score", "scores"]


async def test_readiness__is_503_when_no_worker_has_an_engine(start: Any, stage: Any) -> None:
    client = await start()
    for path in HEALTH:
        assert (await client.get(path)).status == 200
    stage.break_scores = 1 << 30
    stage.break_makes = 1 << 30
    async with asyncio.timeout(60):
        while (await client.get("/v2/health/ready")).status == 200:  # until a text reached the worker in its time
            late = await client.post(INFER, json=document("good"), headers={"X-Request-Timeout-Ms": "50"})
            assert (late.status, list(await late.json())) == (504, ["error"])
    assert (await client.get("/v2/health/live")).status == 200
    for path in HEALTH:
        assert (await client.get(path)).status == 503

"""Tests of the Open Inference Protocol, on the real app with a scripted engine; the real client is in tests/."""

import asyncio
import json
import struct
from typing import Any

import pytest

Json = dict[str, Any]
INFER = "/v2/models/fake/infer"
LENGTH = "Inference-Header-Content-Length"


def document(*texts: Any, **more: Any) -> Json:
    return {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [len(texts)], "data": list(texts)}], **more}


def binary(*texts: bytes, **more: Any) -> tuple[bytes, bytes]:
    """A request's JSON and what follows it."""
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


async def test_named_outputs__are_sent_alone_and_in_that_order(start: Any) -> None:
    body = document("good", outputs=[{"name": "score"}, {"name": "label", "parameters": {"binary_data": False}}])
    _, answer = await infer(await start(), body)
    assert [output["name"] for output in answer["outputs"]] == ["score", "label"]


async def test_nested_data_and_version_in_the_path__are_understood(start: Any) -> None:
    body = document("good", "bad")
    body["inputs"][0] |= {"shape": [2, 1], "data": [["good"], ["bad"]]}
    status, answer = await infer(await start(), body, "/v2/models/fake/versions/r1/infer")
    assert (status, answer["outputs"][0]["data"]) == (200, ["POSITIVE", "NEGATIVE"])


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


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"inputs": []},
        {"inputs": document("good")["inputs"] * 2},
        document(),
        document("good", 7),
        document("good", " "),
        document(*["good"] * 65),
        document("x" * 10_001),
        {"inputs": [document("good")["inputs"][0] | {"data": [[["good"]]]}]},
        document("good", outputs=[{"name": "logits"}]),
        document("good", outputs=[{"name": "label"}] * 4),
        document("good", outputs=[{"name": "label", "parameters": {"classification": 1}}]),
        {"inputs": [document("good")["inputs"][0] | {"datatype": "FP32"}]},
        {"inputs": [document("good")["inputs"][0] | {"name": "words"}]},
        {"inputs": [document("good")["inputs"][0] | {"shape": [2]}]},
        {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1]}]},
    ],
)
async def test_wrong_request__is_400_that_says_what_and_repeats_nothing(start: Any, body: Any) -> None:
    status, answer = await infer(await start(), body)
    assert (status, list(answer)) == (400, ["error"])
    assert len(answer["error"]) > 10
    assert "xxxx" not in answer["error"]


@pytest.mark.parametrize("cut", [-1, 1, 3])
async def test_binary_data_of_another_size_than_said__is_400(start: Any, cut: int) -> None:
    head, tail = binary(b"good")
    content = head + (tail[:cut] if cut > 0 else tail + b"\0")
    response = await (await start()).post(INFER, data=content, headers={LENGTH: str(len(head))})
    assert response.status == 400


@pytest.mark.parametrize("tail", [b"\x05\0\0\0good", b"\x04\0\0", b"\x02\0\0\0\xff\xfe", b"\xff\xff\xff\xffgood"])
async def test_malformed_binary_data__is_400(start: Any, tail: bytes) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(tail)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    response = await (await start()).post(INFER, data=head + tail, headers={LENGTH: str(len(head))})
    assert (response.status, list(await response.json())) == (400, ["error"])


@pytest.mark.parametrize("length", ["-1", "x", "999999", "٣", ""])
async def test_length_that_is_none__is_400(start: Any, length: str) -> None:
    response = await (await start()).post(INFER, json=document("good"), headers={LENGTH: length})
    assert response.status == 400


@pytest.mark.parametrize(
    "path",
    ["/v2/models/other/infer", "/v2/models/fake/versions/r2/infer", "/v2/models/fake/config", "/v2/nothing"],
)
async def test_what_is_not_there__is_404_in_the_shape_of_the_protocol(start: Any, path: str) -> None:
    status, answer = await infer(await start(), document("good"), path)
    assert (status, list(answer)) == (404, ["error"])


async def test_wrong_method_for_the_root__is_told_in_the_shape_of_the_protocol(start: Any) -> None:
    status, answer = await infer(await start(), document("good"), "/v2")
    assert (status, list(answer)) == (405, ["error"])


async def test_poison__fails_the_request(start: Any) -> None:
    status, answer = await infer(await start(), document("good", "poison"))
    assert (status, list(answer)) == (500, ["error"])


async def test_overload__is_503_with_the_time_to_retry(start: Any, stage: Any) -> None:
    client = await start(inference_max_wait_s=1e-9)
    stage.hold()
    first = asyncio.create_task(infer(client, document("good")))
    await stage.entered()
    response = await client.post(INFER, json=document("bad"))
    assert (response.status, list(await response.json())) == (503, ["error"])
    assert int(response.headers["Retry-After"]) >= 1
    stage.release()
    assert (await first)[0] == 200


async def test_server_and_model__describe_themselves(start: Any) -> None:
    client = await start()
    assert "binary_tensor_data" in (await (await client.get("/v2")).json())["extensions"]
    model = await (await client.get("/v2/models/fake")).json()
    assert (model["name"], model["versions"]) == ("fake", ["r1"])
    assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [output["name"] for output in model["outputs"]] == ["label", "score", "scores"]


@pytest.mark.parametrize(
    "path", ["/v2/health/live", "/v2/health/ready", "/v2/models/fake/ready", "/v2/models/fake/versions/r1/ready"]
)
async def test_health__is_200_while_the_model_answers(start: Any, path: str) -> None:
    assert (await (await start()).get(path)).status == 200


async def test_health__is_503_when_no_worker_has_an_engine(start: Any, stage: Any) -> None:
    client = await start()
    stage.break_scores = 1 << 30
    stage.break_makes = 1 << 30
    async with asyncio.timeout(60):
        while (await client.get("/v2/health/ready")).status == 200:  # until a text reached the worker in its time
            late = await client.post(INFER, json=document("good"), headers={"X-Request-Timeout-Ms": "50"})
            assert (late.status, list(await late.json())) == (504, ["error"])
    assert (await client.get("/v2/health/live")).status == 200
    for path in ("/v2/health/ready", "/v2/models/fake/ready"):
        assert (await client.get(path)).status == 503


async def test_answers__are_on_record(start: Any, recorded: Any) -> None:
    await infer(await start(), document("good", "bad"))
    assert [(event["route"], event["label"]) for event in await recorded(2)] == [
        ("/v2/models/{model}/infer", "POSITIVE"),
        ("/v2/models/{model}/infer", "NEGATIVE"),
    ]

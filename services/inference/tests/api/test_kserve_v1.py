"""KServe's V1 protocol, on the real app with a scripted engine."""

from typing import Any

PREDICT = "/v1/models/fake:predict"


async def test_predict__ignores_other_fields(start: Any) -> None:
    client = await start()
    response = await client.post(PREDICT, json={"instances": ["good good"], "parameters": {"any": 1}})
    assert [item["label"] for item in (await response.json())["predictions"]] == ["POSITIVE"]
    assert (await client.post("/v1/models/fake:explain", json={"instances": ["x"]})).status == 405


async def test_models__are_listed_for_kserve_and_openai(start: Any) -> None:
    client = await start()
    entry = {"id": "fake", "object": "model", "created": 0, "owned_by": "sluice"}
    listed = await (await client.get("/v1/models")).json()
    assert listed == {"models": ["fake"], "object": "list", "data": [entry]}
    state = await (await client.get("/v1/models/fake")).json()
    assert state == {"name": "fake", "ready": True, **entry}
    assert (await client.get("/v1/models/other")).status == 404

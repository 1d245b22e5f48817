"""Predictions are recorded as they are answered."""

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/models/fake", {"inputs": ["good", "poison"]}),
        (
            "/v2/models/fake/infer",
            {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["good", "poison"]}]},
        ),
    ],
)
async def test_list_that_fails_as_a_whole__is_recorded_as_failed(
    start: Any, recorded: Any, path: str, body: Any
) -> None:
    client = await start()
    assert (await client.post(path, json=body)).status == 500
    events = await recorded(2)
    assert [(event["outcome"], event.get("label"), event["characters"]) for event in events] == [
        ("error", None, 4),
        ("error", None, 6),
    ]

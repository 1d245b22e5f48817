"""One report by the real Gemini; deselected unless `-m live` is given."""

import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest


@pytest.mark.live
async def test_real_gemini__writes_a_report(open_client: Callable[..., Awaitable[Any]]) -> None:
    client = await open_client(GEMINI_API_KEY=os.environ["GEMINI_API_KEY"])
    response = await client.post("/analyze/performance", json={"window": "1h"})
    report = await response.json()
    assert (report["source"], report["fallback_reason"]) == ("ai", None)

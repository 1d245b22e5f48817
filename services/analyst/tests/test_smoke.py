"""The try-out of the real Gemini, run as a user runs it, against the fake one."""

import asyncio
import os
import sys

import pytest
from fake_gemini import GOOD, Script, rest


async def _run(**variables: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "analyst.smoke"),
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_without_a_key__says_so_and_sends_nothing() -> None:
    assert await _run(GEMINI_API_KEY="") == (1, "Set GEMINI_API_KEY to try the real Gemini; nothing was sent.\n")


@pytest.mark.parametrize(
    ("script", "status", "line"),
    [
        (Script(text=GOOD), 0, "The p95 latency is 420 ms."),
        (Script(text=GOOD.replace("{e1}", "7 ms")), 1, "refused: summary: literal figure (7)"),
        (Script(steps=[404]), 1, "no draft: model_not_found"),
    ],
)
async def test_with_a_key__prints_the_report_or_the_reason(script: Script, status: int, line: str) -> None:
    async with rest(script) as endpoint:
        code, output = await _run(GEMINI_API_KEY="key", GEMINI_SDK="genai", GEMINI_ENDPOINT=endpoint)
    assert (code, script.calls) == (status, 1)
    assert line in output.splitlines()

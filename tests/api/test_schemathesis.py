"""Thousands of generated requests through the edge: every response is as documented, and no service fails.

API_SEED selects other requests; the seed is printed.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from system import System

HERE = Path(__file__).parent
SEED = os.environ.get("API_SEED", "20261124")
SERVICES = {
    "edge": "^/(health)?$",
    "inference": "^/(predict|models|v2)",
    "metrics": "^/metrics",
    "analyst": "^/analyze",
}
EXAMPLES = {  # of each operation that takes any input: with the token and without
    "edge": (10, 10),
    "inference": (25, 5),
    "metrics": (30, 5),
    "analyst": (250, 100),
}


@pytest.mark.parametrize("service", SERVICES)
async def test_generated_requests__break_nothing_and_are_answered_as_documented(
    system: System, token: str, tmp_path: Path, service: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with_token, without = EXAMPLES[service]
    await system.specification()  # complete, and cached for the next requests
    reports = await asyncio.gather(
        generate(system, tmp_path / "with", service, with_token, f"--header=Authorization: Bearer {token}"),
        # Below /metrics and /analyze a method that writes is refused before its route is looked up: 401 and not 405.
        generate(system, tmp_path / "without", service, without, "--exclude-checks=unsupported_method"),
    )
    for report in reports:
        assert report["exit_code"] == 0, report["output"]
    generated = sum(report["test_cases"]["generated"] for report in reports)
    with capsys.disabled():
        print(f"\n{service}: {generated} requests, seed {SEED}", end=" ")  # noqa: T201  # what replays the run
    assert service == "edge" or generated >= 1_000


async def generate(system: System, folder: Path, service: str, examples: int, option: str) -> dict[str, Any]:
    """Run the operations of one service; return the report, with the printed text as `output`."""
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "schemathesis.toml")),
        *("run", f"{system.url}/openapi.json", "--include-path-regex", SERVICES[service], option),
        *("--max-examples", str(examples), "--seed", SEED, "--generation-database", "none", "--warnings", "off"),
        *("--no-color", "--report", "json", "--report-json-path", "report.json"),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report | {"output": output.decode()[-20_000:]}

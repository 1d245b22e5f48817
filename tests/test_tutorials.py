"""The README and the tutorials work as written: their commands run against a real system and print what they show.

A `sh` block is run. A `text` block after it is its whole output. Other blocks need a second terminal or a network.
"""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from system import System

from inference.models import bundle

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs" / "tutorials"
StartSystem = Callable[..., System]


def blocks(page: str) -> list[tuple[str, str]]:
    """Return language and content of each code block of a tutorial, or of another page by its absolute path."""
    text = (TUTORIALS / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def run(command: str, url: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command.replace("http://127.0.0.1:8000", url)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def follow(page: str, url: str, folder: Path) -> None:
    """Run the commands of a page in `folder`, and compare the output where the page shows it."""
    found = blocks(page)
    commands = [place for place, (language, _) in enumerate(found) if language == "sh"]
    assert commands
    for place in commands:
        output = run(found[place][1], url, folder)
        if place + 1 < len(found) and found[place + 1][0] == "text":
            assert output == found[place + 1][1], found[place][1]


def start_line(page: str) -> dict[str, str]:
    """Return the variables in the page's `make run` command."""
    [line] = [content for _, content in blocks(page) if content.rstrip().endswith("make run")]
    return dict(word.split("=", 1) for word in line.split()[:-2])


def test_readme__its_requests_are_answered(system: System) -> None:
    commands = [content for language, content in blocks(str(ROOT / "README.md")) if content.startswith("curl")]
    predicted, used = [run(command, system.url, ROOT) for command in commands]
    assert json.loads(predicted)["label"] == "POSITIVE"
    assert [part for part in ('{"count":', '"throughput_per_s":', "# Performance: ") if part not in used] == []


async def test_limit_a_client__prints_what_the_page_shows(start_system: StartSystem, tmp_path: Path) -> None:
    [policies] = [content for language, content in blocks("limit-a-client.md") if language == "toml"]
    (tmp_path / "policies.toml").write_text(policies)
    variables = {name: value.replace("$PWD", str(tmp_path)) for name, value in start_line("limit-a-client.md").items()}
    system = await asyncio.to_thread(start_system, **variables)
    await asyncio.to_thread(follow, "limit-a-client.md", system.url, tmp_path)


async def test_serve_your_own_model__prints_what_the_page_shows(start_system: StartSystem, tmp_path: Path) -> None:
    """Uses the bundled model's files in the layout of the Hub instead of the download."""
    model = tmp_path / "models" / "other"
    (model / "onnx").mkdir(parents=True)
    (model / "onnx" / "model.onnx").symlink_to(bundle.BUNDLED / bundle.MODEL)
    (model / "tokenizer.json").symlink_to(bundle.BUNDLED / bundle.TOKENIZER)
    labels = {"model_type": "bert", "max_position_embeddings": 512, "id2label": {"0": "BAD", "1": "GOOD"}}
    (model / "config.json").write_text(json.dumps(labels))
    page = "serve-your-own-model.md"
    variables = {name: value.replace("$PWD", str(tmp_path)) for name, value in start_line(page).items()}
    system = await asyncio.to_thread(start_system, **variables)
    await asyncio.to_thread(follow, page, system.url, tmp_path)


async def test_load_test__counts_every_answer(start_system: StartSystem) -> None:
    page = "load-test.md"
    system = await asyncio.to_thread(start_system, **start_line(page))
    locust, count = [content for language, content in blocks(page) if language == "sh"]
    fewer = locust.replace("--users 20", "--users 4").replace("--run-time 10s", "--run-time 3s")
    assert fewer != locust
    await asyncio.to_thread(run, fewer, system.url, ROOT)
    async with asyncio.timeout(60):
        while json.loads(await asyncio.to_thread(run, count, system.url, ROOT))["count"] == 0:
            await asyncio.sleep(0.2)


@pytest.mark.parametrize("page", sorted(path.name for path in TUTORIALS.glob("*.md")))
def test_tutorial__is_followed_by_a_test(page: str) -> None:
    assert page in Path(__file__).read_text(encoding="utf-8")

"""The GitHub workflows pin their actions, keep no credentials, and call targets and programs that exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def jobs(path: Path) -> list[dict[str, Any]]:
    return [*yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow__has_few_permissions_pinned_actions_and_no_credentials(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["permissions"] == {}
    for job in jobs(path):
        assert job["permissions"]
        assert job["timeout-minutes"]
        for step in job["steps"]:
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step.get("uses", f"none@{'0' * 40}"))
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow__calls_what_exists(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    suites = [name for job in jobs(path) for name in job.get("strategy", {}).get("matrix", {}).get("suite", [])]
    called = {*re.findall(r"\bmake (?:-s )?([a-z][a-z0-9-]*)", text), *suites, *re.findall(r"target: ([a-z]+),", text)}
    assert called - TARGETS == set()
    programs = re.findall(r"(?<![\w/])(\.ci/[\w-]+|deploy/compose/make-secrets)", text)
    assert [name for name in programs if not (ROOT / name).exists()] == []

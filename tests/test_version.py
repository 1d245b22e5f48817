"""The version is named once, in libs/common; generated and deployed files agree with it."""

import json
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSION: str = tomllib.loads((ROOT / "libs" / "common" / "pyproject.toml").read_text("utf-8"))["project"]["version"]
PACKAGES = ("common", "edge-limiter", "inference", "metrics", "analyst", "launcher")


@pytest.mark.parametrize("package", PACKAGES)
def test_package__has_the_version_of_common(package: str) -> None:
    assert version(f"sluice-{package}") == VERSION


def test_manifests__name_the_version_in_images_jobs_and_labels() -> None:
    files = [*(ROOT / "deploy" / "k8s").glob("*/*.yaml"), *(ROOT / "deploy" / "k8s").glob("*/*/*.yaml")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    images = re.findall(r"image: sluice/[a-z-]+:(\S+)", text)
    labels = re.findall(r"app\.kubernetes\.io/version: (\S+)", text)
    references = re.findall(r"\?ref=v(\S+)", text)
    jobs = [name.replace("-", ".") for name in re.findall(r"name: migrate-[a-z]+-([\d-]+)", text)]
    assert min(map(len, (images, labels, references, jobs))) > 0
    assert {*images, *labels, *references, *jobs} == {VERSION}


def test_openapi_document__has_the_version() -> None:
    file = ROOT / "services" / "edge-limiter" / "edge_limiter" / "pages" / "openapi.json"
    assert json.loads(file.read_text(encoding="utf-8"))["info"]["version"] == VERSION


def test_verification_in_the_security_page__names_the_version() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert {*re.findall(r"(?:edge-limiter:|tags/v)(\d\S+)", text)} == {VERSION}


def test_changelog__has_notes_for_the_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    [notes] = re.findall(rf"^## {re.escape(VERSION)}\b.*?\n(.*?)^## ", changelog, re.DOTALL | re.MULTILINE)
    assert "### Added" in notes

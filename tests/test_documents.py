"""Files, tests, pages and headings named in the documents exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "libs", ROOT / "services", ROOT / "deploy"]
READMES = [*(ROOT / "services").glob("*/README.md"), ROOT / "loadtests" / "README.md"]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted(READMES)]


def named_files(text: str) -> set[str]:
    return set(re.findall(r"`([\w./-]+\.py)`", text))


def links(document: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file and the heading that each link leads to."""
    for target, heading in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            yield (document.parent / target if target else document), heading


def headings(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub and the site make them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_architecture__names_files_that_exist() -> None:
    named = named_files((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert {"edge_limiter/proxy/routes.py", "app.py", "settings.py"} <= named
    modules = [f"/{path.relative_to(ROOT)}" for folder in SOURCES for path in folder.rglob("*.py")]
    assert [name for name in sorted(named) if not any(module.endswith(f"/{name}") for module in modules)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_links_of_a_document__lead_somewhere(document: Path) -> None:
    found = list(links(document))
    assert [str(target) for target, _ in found if not target.exists()] == []
    wanted = [(target, heading) for target, heading in found if heading and target.suffix == ".md"]
    assert [(str(target), heading) for target, heading in wanted if heading not in headings(target)] == []


def test_guarantees__names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w./-]+\.py)::(test_\w+)`", text)
    promises = re.findall(r"^## (\d)\. ", text, re.MULTILINE)
    assert promises == list("123456789")
    assert len(named) >= len(promises)
    assert [name for file, name in named if f"def {name}(" not in (ROOT / file).read_text(encoding="utf-8")] == []

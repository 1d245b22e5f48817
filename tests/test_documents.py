"""What the documents name exists: files, and the pages that they link to."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [ROOT / "libs", ROOT / "services", ROOT / "deploy"]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def named_files(text: str) -> set[str]:
    return set(re.findall(r"`([\w./-]+\.py)`", text))


def links(document: Path) -> Iterator[Path]:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            yield document.parent / target


def test_architecture__names_files_that_exist() -> None:
    named = named_files((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"))
    assert {"edge_limiter/proxy/routes.py", "app.py", "settings.py"} <= named
    modules = [f"/{path.relative_to(ROOT)}" for folder in SOURCES for path in folder.rglob("*.py")]
    assert [name for name in sorted(named) if not any(module.endswith(f"/{name}") for module in modules)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_links_of_a_document__lead_somewhere(document: Path) -> None:
    assert [str(target) for target in links(document) if not target.exists()] == []

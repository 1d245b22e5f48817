"""Build the documentation site: `make docs`, or `make docs ARGS=serve` to read it while you write.

Zensical reads a prepared copy below .cache: the pages of `docs/`, files of the root such as the README, and the
generated reference. A link to a file that is no page leads to REPOSITORY_URL (of the environment) if that is set;
otherwise only its text is shown. A link to nothing is an error.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from reference import PAGES, ROOT

DOCS: Final = ROOT / "docs"
PREPARED: Final = ROOT / ".cache" / "docs"
OF_THE_ROOT: Final = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md",
                      "security.md": "SECURITY.md"}  # fmt: skip
_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s#:]+)(#[^)]*)?\)")
_IMAGE: Final = re.compile(r'((?:src|srcset)="|!\[[^\]]*\]\()docs/')


def main(arguments: list[str]) -> int:
    prepare()
    words = arguments or ["build", "--strict", "--clean"]
    return subprocess.run([Path(sys.executable).with_name("zensical"), *words], cwd=PREPARED, check=False).returncode


def prepare() -> None:
    """Write the site's source below .cache."""
    shutil.rmtree(PREPARED, ignore_errors=True)
    shutil.copytree(DOCS, PREPARED / "pages", ignore=shutil.ignore_patterns("site", "__pycache__"))
    shutil.copy(DOCS / "site" / "zensical.toml", PREPARED)
    shutil.copy(DOCS / "site" / "site.css", PREPARED / "pages")
    sources = {file.relative_to(DOCS).as_posix(): file for file in DOCS.rglob("*.md")}
    sources |= {page: ROOT / name for page, name in OF_THE_ROOT.items()}
    texts = {page: _IMAGE.sub(r"\1", source.read_text(encoding="utf-8")) for page, source in sources.items()}
    places = {source.resolve(): page for page, source in sources.items()}
    places |= {DOCS / page: page for page in PAGES}
    for page, text in texts.items():
        folder = sources[page].parent
        linked = _LINK.sub(lambda link, page=page, folder=folder: _resolved(link, folder, page, places), text)  # type: ignore[misc]
        _write(page, linked)
    for page, render in PAGES.items():
        _write(page, render())


def _write(page: str, text: str) -> None:
    file = PREPARED / "pages" / page
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _resolved(link: re.Match[str], folder: Path, page: str, places: dict[Path, str]) -> str:
    text, target, anchor = link[1], (folder / link[2]).resolve(), link[3] or ""
    if target in places:
        return f"[{text}]({os.path.relpath(places[target], Path(page).parent)}{anchor})"
    if not target.exists():
        raise SystemExit(f"{page}: the link to {link[2]} leads nowhere")
    repository = os.environ.get("REPOSITORY_URL", "").rstrip("/")
    return f"[{text}]({repository}/blob/main/{target.relative_to(ROOT)}{anchor})" if repository else text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

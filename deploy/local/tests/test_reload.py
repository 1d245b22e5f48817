"""What counts as a change of a service's source."""

import os
from pathlib import Path
from typing import Any

import pytest

from launcher.reload import modified


@pytest.mark.parametrize(
    "name", ["module.py", "limit.lua", "prompt.md", "schema.json", "page.html", "plot.js", "x.css"]
)
def test_modified__sees_sources_changed_added_and_removed(tmp_path: Path, name: str) -> None:
    (tmp_path / "deep").mkdir()
    module, compiled = tmp_path / "deep" / name, tmp_path / "module.pyc"
    module.touch()
    compiled.touch()
    before = modified([tmp_path])
    assert list(before) == [module]
    os.utime(module, ns=(1, 1))
    assert modified([tmp_path]) == {module: 1}
    module.unlink()
    assert modified([tmp_path]) == {}


def test_folder_that_is_removed_while_it_is_read__is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a checkout of another branch does."""
    for folder in ("gone", "stays"):
        (tmp_path / folder).mkdir()
    (tmp_path / "stays" / "a.py").touch()
    (tmp_path / "stays" / "loop.py").symlink_to("loop.py")
    read = os.scandir

    def scandir(path: str) -> Any:
        if Path(path).name == "gone":
            raise FileNotFoundError(path)
        return read(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert list(modified([tmp_path])) == [tmp_path / "stays" / "a.py"]

"""What counts as a change of a service's source."""

import os
from pathlib import Path

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

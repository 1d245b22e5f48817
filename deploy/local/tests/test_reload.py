"""What counts as a change of a service's source."""

import os
from pathlib import Path

from launcher.reload import modified


def test_modified__sees_python_files_changed_added_and_removed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    module, page = tmp_path / "deep" / "module.py", tmp_path / "page.html"
    module.touch()
    page.touch()
    before = modified([tmp_path])
    assert list(before) == [module]
    os.utime(module, ns=(1, 1))
    assert modified([tmp_path]) == {module: 1}
    module.unlink()
    assert modified([tmp_path]) == {}

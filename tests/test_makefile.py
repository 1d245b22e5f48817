"""Every script and module that the Makefile names is there."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SCRIPTS = sorted({*re.findall(r"[\w./-]+\.(?:py|toml|txt|yaml)\b", MAKEFILE)} - {"FILE.tsv"})
PLACED = re.findall(r"PYTHONPATH=(\S+) \S+ -m (chaos[\w.]*)", MAKEFILE)
MODULES = sorted({*re.findall(r"-m ((?!pytest|ruff|mypy|uv)[a-z][\w.]*)", MAKEFILE)})


@pytest.mark.parametrize("script", SCRIPTS)
def test_file_of_the_makefile__is_there(script: str) -> None:
    assert (ROOT / script).exists()


@pytest.mark.parametrize("module", MODULES)
def test_module_of_the_makefile__can_be_found(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "services" / "inference")  # where `make model` runs
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize(("path", "module"), PLACED)
def test_module_that_the_makefile_gives_a_path__starts_with_it(path: str, module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr

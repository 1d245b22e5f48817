"""Every script and module that the Makefile names is there, and its targets work in any shell."""

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


def made(makefile: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """make, as a shell with that environment calls it, which is not one that this test was made in."""
    env = {name: value for name, value in os.environ.items() if "MAKE" not in name} | environment
    command = ["make", "-s", "-f", str(makefile), *words]
    return subprocess.run(command, cwd=makefile.parent, env=env, capture_output=True, text=True, check=False)


def test_what_a_shell_has_set_for_another_python__reaches_neither_ours_nor_its_pip(tmp_path: Path) -> None:
    """Where to fetch from pip is still told."""
    probe = tmp_path / "probe.mk"
    probe.write_text("probe:\n\t@env\n")
    elsewhere = {f"PIP_{name}": "/elsewhere" for name in ("TARGET", "PREFIX", "ROOT", "USER", "CONSTRAINT")}
    kept = {
        "PIP_INDEX_URL": "https://mirror",
        "PIP_FIND_LINKS": "/wheels",
        "PIP_CERT": "/ca",
        "HTTPS_PROXY": "http://p",
    }
    found = made(ROOT / "Makefile", "-f", str(probe), "probe", PYTHONPATH="/a", PYTHONHOME="/b", **elsewhere, **kept)
    lines = dict(line.partition("=")[::2] for line in found.stdout.splitlines())
    assert {name: value for name, value in lines.items() if name in {*elsewhere, "PYTHONPATH", "PYTHONHOME"}} == {
        "PIP_USER": "0"  # not merely unset: pip's own file may say `user = true`
    }
    assert lines.items() >= kept.items()


@pytest.mark.parametrize(("path", "module"), PLACED)
def test_module_that_the_makefile_gives_a_path__starts_with_it(path: str, module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr

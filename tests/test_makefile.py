"""The Makefile names existing files and modules, and its targets work in any shell and state of a clone."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SCRIPTS = sorted({*re.findall(r"[\w./-]+\.(?:py|toml|txt|yaml)\b", MAKEFILE)} - {"FILE.tsv"})
PLACED = re.findall(r"PYTHONPATH=(\S+) \S+ -m (chaos[\w.]*)", MAKEFILE)
MODULES = sorted({*re.findall(r"-m ((?!pytest|ruff|mypy|uv)[a-z][\w.]*)", MAKEFILE)})


@pytest.mark.parametrize("script", SCRIPTS)
def test_file_in_the_makefile__exists(script: str) -> None:
    assert (ROOT / script).exists()


@pytest.mark.parametrize("module", MODULES)
def test_module_in_the_makefile__can_be_found(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "services" / "inference")  # where `make model` runs
    assert importlib.util.find_spec(module) is not None


def test_help__is_grouped_and_fits_the_terminal() -> None:
    lines = made(ROOT / "Makefile").stdout.splitlines()
    assert [line for line in lines if line and not line.startswith(" ")] == [
        *("Run on this machine", "Test", "Check", "Deploy", "Benchmark")
    ]
    assert max(map(len, lines)) <= 80


def made(makefile: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell with that environment, not as a child of the make that runs this test."""
    env = {name: value for name, value in os.environ.items() if "MAKE" not in name} | environment
    command = ["make", "-s", "-f", str(makefile), *words]
    return subprocess.run(command, cwd=makefile.parent, env=env, capture_output=True, text=True, check=False)


def test_python_and_pip_settings_of_the_shell__are_ignored(tmp_path: Path) -> None:
    """Except those that say where packages come from."""
    probe = tmp_path / "probe.mk"
    probe.write_text("probe:\n\t@env\n")
    elsewhere = {f"PIP_{name}": "/elsewhere" for name in ("TARGET", "PREFIX", "ROOT", "USER", "CONSTRAINT")}
    leading = {"PYTHONPATH": "/a", "PYTHONHOME": "/b", "PYTHONOPTIMIZE": "2"}  # the last removes assertions
    kept = {
        "PIP_INDEX_URL": "https://mirror",
        "PIP_FIND_LINKS": "/wheels",
        "PIP_CERT": "/ca",
        "HTTPS_PROXY": "http://p",
    }
    found = made(ROOT / "Makefile", "-f", str(probe), "probe", **leading, **elsewhere, **kept)
    lines = dict(line.partition("=")[::2] for line in found.stdout.splitlines())
    assert {name: value for name, value in lines.items() if name in {*elsewhere, *leading}} == {
        "PIP_USER": "0"  # not only unset, because pip.conf may contain `user = true`
    }
    assert lines.items() >= kept.items()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The Makefile and the launcher, without .venv, in a folder with a space in its name."""
    folder = tmp_path / "a clone"
    shutil.copytree(ROOT / "deploy" / "local", folder / "deploy" / "local", ignore=shutil.ignore_patterns("tests"))
    shutil.copy(ROOT / "Makefile", folder)
    return folder / "Makefile"


@pytest.mark.parametrize("target", ["status", "logs", "token"])
def test_query__in_a_fresh_clone__names_the_cure(clone: Path, target: str) -> None:
    asked = made(clone, target, PYTHONHOME="/nowhere")
    assert asked.returncode != 0
    assert "`make run` starts" in asked.stdout.splitlines()[0]


def test_clean__without_a_working_venv__stops_the_system_first(clone: Path) -> None:
    state = clone.parent / ".sluice"
    (clone.parent / ".venv" / "bin").mkdir(parents=True)
    (clone.parent / ".venv" / "bin" / "python").symlink_to("/gone")
    with holding(state) as launcher:
        cleaned = made(clone, "clean", FORCE="1")
        assert (cleaned.stdout, cleaned.returncode) == ("stopped\n", 0)
        assert launcher.wait(60) == 0
    assert not state.exists()


@contextmanager
def holding(state: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds a state folder until SIGTERM, like a launcher."""
    code = """import pathlib, os, signal, sys
from launcher.state import Running, held
state = pathlib.Path(sys.argv[1])
state.mkdir()
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with held(state, Running(os.getpid(), "")):
    print("held", flush=True)
    signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code, str(state)], stdout=subprocess.PIPE, text=True) as launcher:
        try:
            assert launcher.stdout is not None
            assert launcher.stdout.readline() == "held\n"
            yield launcher
        finally:
            launcher.kill()


@pytest.mark.parametrize(("path", "module"), PLACED)
def test_module__with_a_path_in_the_makefile__starts(path: str, module: str) -> None:
    command = [sys.executable, "-m", module, "--help"]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr

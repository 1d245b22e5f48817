"""Set-up's judgement: what still fits, what is made anew, what pip has said. Installing itself is CI's to prove."""

import sys
from pathlib import Path

import pytest
from bootstrap import Progress, SetUpError, check_machine, reason_to_rebuild, run_pip

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    configure(venv, VERSION)
    return venv


def configure(venv: Path, version: str, path: Path | None = None) -> None:
    (venv / "pyvenv.cfg").write_text(f"version = {version}.1\ncommand = python -m venv {path or venv}\n")


def test_whole_environment__fits(venv: Path) -> None:
    assert reason_to_rebuild(venv) is None


def test_missing_environment__is_made(tmp_path: Path) -> None:
    assert reason_to_rebuild(tmp_path / ".venv") == "it is not a virtual environment"


def test_interrupted_set_up__starts_over(venv: Path) -> None:
    (venv / ".installing").touch()
    assert reason_to_rebuild(venv) == "an earlier set-up was interrupted"


def test_moved_folder__is_made_anew(venv: Path, tmp_path: Path) -> None:
    configure(venv, VERSION, tmp_path / "elsewhere" / ".venv")
    assert reason_to_rebuild(venv) == "its folder was moved"


def test_other_python__is_named(venv: Path) -> None:
    configure(venv, "3.1")
    assert reason_to_rebuild(venv) == f"it was made with Python 3.1.1, and this is {VERSION}"


def test_python_gone__is_made_anew(venv: Path) -> None:
    (venv / "bin" / "python").unlink()
    assert reason_to_rebuild(venv) == "its Python is gone"


def test_python_without_venv__is_named_with_the_cure() -> None:
    with pytest.raises(SetUpError, match=rf"lacks venv and ensurepip\..* apt install .*python{VERSION}-venv"):
        check_machine("run", ["venv", "ensurepip"], free_mb=99_999)


def test_full_disk__is_told_before_anything_is_fetched() -> None:
    with pytest.raises(SetUpError, match=r"1500 MB of free disk are needed at /.+; there are 1400\."):
        check_machine("run", [], free_mb=1400)
    check_machine("run", [], free_mb=1500)


def test_progress__adds_up_what_was_downloaded_but_not_what_was_cached() -> None:
    progress = Progress()
    for said in (
        "Downloading aiohttp-3.14.5-cp311-cp311-manylinux.whl (1.8 MB)",
        "Downloading mako-1.4.3-py3-none-any.whl.metadata (2.9 kB)",
        "Downloading mako-1.4.3-py3-none-any.whl (500 kB)",
        "Using cached yarl-1.25.1-cp311-cp311-manylinux.whl (9.0 MB)",
    ):
        progress.follow(said, total=3)
    assert progress.downloaded_mb == pytest.approx(2.3)


@pytest.mark.parametrize(("failures", "succeeds"), [(0, True), (1, True), (2, False)])
def test_pip_that_fails__is_asked_once_more(venv: Path, failures: int, succeeds: bool) -> None:
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").write_text(f"""#!/bin/sh
echo asked >>"$0.log"
echo "connection broken"
[ "$(wc -l <"$0.log")" -gt {failures} ]
""")
    (venv / "bin" / "python").chmod(0o755)
    if succeeds:
        run_pip(venv, [], Progress())
    else:
        with pytest.raises(SetUpError, match="connection broken"):
            run_pip(venv, [], Progress())
    assert (venv / "bin" / "python.log").read_text() == "asked\n" * min(2, failures + 1)

"""Set-up's judgement: what still fits, what is made anew, what pip has said. Installing itself is CI's to prove."""

import fcntl
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import bootstrap
import pytest
from bootstrap import Progress, installed, main, reason_to_rebuild, run_pip, set_up
from machine import SetUpError, check_machine

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    configure(venv, VERSION)
    return venv


def configure(venv: Path, version: str, path: Path | str | None = None) -> None:
    (venv / "pyvenv.cfg").write_text(f"version = {version}.1\ncommand = python -m venv {path or venv}\n")


def test_whole_environment__fits(venv: Path) -> None:
    assert reason_to_rebuild(venv) is None


def test_missing_environment__is_made(tmp_path: Path) -> None:
    assert reason_to_rebuild(tmp_path / ".venv") == "it is not a virtual environment"


def test_interrupted_set_up__starts_over(venv: Path) -> None:
    (venv / ".installing").touch()
    assert reason_to_rebuild(venv) == "an earlier set-up was interrupted"


def test_moved_folder__is_made_anew(venv: Path, tmp_path: Path) -> None:
    for earlier in (tmp_path / "elsewhere" / ".venv", f"/mnt{venv}"):
        configure(venv, VERSION, earlier)
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


def test_python_without_wheels__is_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("machine.NEWEST", (3, 10))
    with pytest.raises(SetUpError, match=rf"^Python {VERSION} at /.+ is too new: .* Use 3\.11 to 3\.10, as in: make"):
        check_machine("run", [], free_mb=99_999)


def test_full_disk__is_told_before_anything_is_fetched() -> None:
    with pytest.raises(SetUpError, match=r"1500 MB of free disk are needed at /.+; there are 1400\."):
        check_machine("run", [], free_mb=1400)
    check_machine("run", [], free_mb=1500)


def test_disk_that_nothing_may_start_from__is_told_before_anything_is_fetched() -> None:
    with pytest.raises(SetUpError, match=r"^/.+ is mounted noexec, .*Move the clone"):
        check_machine("run", [], free_mb=99_999, may_execute=False)


def test_folder_that_cannot_be_written__is_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a read-only disk."""
    (tmp_path / "file").touch()
    monkeypatch.setattr("bootstrap.STATE", tmp_path / "file" / "state")
    monkeypatch.setattr("bootstrap._fits", lambda *_: False)
    assert main(["run"]) == 1
    assert capsys.readouterr().err == f"set-up: Not a directory: {tmp_path}/file/state\n"


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


class Pip:
    """The pip of a working environment: it notes what it is asked while the environment is or isn't whole."""

    def __init__(self, venv: Path, tmp_path: Path) -> None:
        self.asked, self.ends, self.has = tmp_path / "asked", tmp_path / "ends", tmp_path / "has"
        self.has.write_text("Aiohttp==0.0.1\n")
        self.installs_elsewhere = tmp_path / "elsewhere"
        self.ends.mkdir()
        python = venv / "bin" / "python"
        python.unlink()
        python.write_text(f"""#!/bin/sh
[ "$1" = -c ] && exit
whole=whole
[ -e "{venv}/.installing" ] && whole=broken
for option; do  # the command is the first word without a dash
  case $option in -* | pip) ;; *) command=${{command:-$option}} ;; esac
  [ "$last" = -r ] && listed=$option
  last=$option
done
echo "$whole $*" >>"{self.asked}"
[ "$command" = freeze ] && cat "{self.has}"
if [ -e "{self.ends}/$command" ]; then exit 1; fi
if [ -n "$listed" ] && [ "$command" = install ] && [ ! -e "{self.installs_elsewhere}" ]; then
  grep -o '^[a-z][^ ]*==[^ ]*' "$listed" >>"{self.has}"
fi
exit 0
""")
        python.chmod(0o755)

    def said(self) -> list[list[str]]:
        """For each call whether the environment was whole, and pip's arguments."""
        return [line.replace(" -m pip", "").split() for line in self.asked.read_text().splitlines()]


@pytest.fixture
def pip(venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pip:
    monkeypatch.setattr("bootstrap.STATE", tmp_path / "state")
    return Pip(venv, tmp_path)


def test_new_lock_with_the_registry_away__leaves_the_environment_as_it_is(venv: Path, pip: Pip) -> None:
    (pip.ends / "download").touch()
    for _ in range(2):
        with pytest.raises(SetUpError, match="pip failed"):
            set_up("run", venv)
        assert reason_to_rebuild(venv) is None
    assert {words[0] for words in pip.said()} == {"whole"}


def test_new_lock__is_fetched_first_and_installed_without_the_network(venv: Path, pip: Pip) -> None:
    set_up("run", venv)
    asked = pip.said()
    assert [words[0] for words in asked] == ["whole", "whole", "broken", "broken", "broken"]
    assert asked[1][1] == "download"
    assert asked[2][1:4] == ["install", "--no-index", "--find-links"]
    assert reason_to_rebuild(venv) is None
    set_up("run", venv)
    assert pip.said() == asked


def test_set_up_beside_another__says_that_it_waits(venv: Path, pip: Pip, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; import bootstrap; bootstrap.STATE = Path(sys.argv[1])"
    second = f"{code}; bootstrap.set_up('run', Path(sys.argv[2]))"
    (tmp_path / "state" / "tmp").mkdir(parents=True)
    environment = os.environ | {"PYTHONPATH": str(Path(bootstrap.__file__).parent)}
    command = [sys.executable, "-c", second, str(tmp_path / "state"), str(venv)]
    with (tmp_path / "state" / "tmp" / "set-up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "set-up: another one is at work here; waiting for it\n"
    with waiting:
        assert waiting.wait(60) == 0


def test_pip_that_installs_elsewhere__is_not_believed(venv: Path, pip: Pip) -> None:
    """As with PIP_TARGET, or with a PYTHONPATH that has one of the packages: the next start would find it lacking."""
    pip.installs_elsewhere.touch()
    with pytest.raises(SetUpError, match=r"\.venv lacks aiohappyeyeballs and aiohttp and .*pip config list"):
        set_up("run", venv)
    assert list(venv.glob(".stamp-*")) == []
    assert reason_to_rebuild(venv) == "an earlier set-up was interrupted"


def test_what_is_installed__is_told_as_the_lock_spells_it() -> None:
    had = installed(Path(sys.prefix))
    assert had is not None
    assert {f"{name}=={version(name)}" for name in ("pytest", "pyyaml", "typing-extensions", "pip")} <= had


def test_pip_that_does_not_work__has_the_environment_made_anew(
    venv: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pip.ends / "freeze").touch()
    monkeypatch.setattr("bootstrap.BASE_PYTHON", "false")
    with pytest.raises(SetUpError, match="false makes no virtual environment"):
        set_up("run", venv)
    assert not (venv / "bin").exists()


def test_interrupt_while_the_environment_is_made__starts_over(
    tmp_path: Path, pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one passes for a whole one: it has its configuration and its Python."""
    python = tmp_path / "python"
    python.write_text("""#!/bin/sh
mkdir "$3/bin"
touch "$3/pyvenv.cfg"
ln -s /bin/sh "$3/bin/python"
echo "no space left" >&2
exit 1
""")
    python.chmod(0o755)
    monkeypatch.setattr("bootstrap.BASE_PYTHON", str(python))
    with pytest.raises(SetUpError, match="it ended with:\nno space left"):
        set_up("run", tmp_path / ".venv-new")
    assert (tmp_path / ".venv-new" / "bin" / "python").exists()
    assert reason_to_rebuild(tmp_path / ".venv-new") == "an earlier set-up was interrupted"


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

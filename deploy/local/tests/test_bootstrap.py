"""When an environment is rebuilt, what replaces it, and which machines are refused."""

import base64
import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import bootstrap
import pytest
from bootstrap import SetUpError, check_machine, fingerprint, is_up_to_date, uv_environment

TIMEOUT_S = 120
# A fake uv, because tests do not download: it records its arguments and creates the same files.
UV = """#!/bin/sh
echo "$1 $2" >>uv.calls
if [ -e uv.fails ]; then echo "error: no route to the index"; exit 1; fi
case "$1 $2 $*" in
"venv --quiet"*) mkdir -p "$6/bin" && ln -s "$5" "$6/bin/python" ;;
*" -e "*) [ -e uv.redirected ] || touch .venv.new/bin/sluice ;;
esac
"""


class Clone:
    """A clone whose only package is the fake uv, found in a folder of wheels."""

    def __init__(self, root: Path) -> None:
        self.root, self.venv = root, root / ".venv"
        wheel = self._write_wheel()
        for package in bootstrap.PACKAGES:
            self.write(f"{package}/pyproject.toml", "")
        for name in ("common", *bootstrap.RUN):
            self.write(f"requirements/{name}.txt", "")
        self.write("requirements/uv.txt", f"uv==0.0.1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}")
        self.write("deploy/local/bootstrap.py", Path(bootstrap.__file__).read_text())

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, **environment: str) -> subprocess.Popen[str]:
        sources = {"PIP_FIND_LINKS": (self.root / "wheels").as_uri(), "PIP_NO_INDEX": "1"}
        return subprocess.Popen(
            [sys.executable, str(self.root / "deploy/local/bootstrap.py"), "run"],
            env=os.environ | sources | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def set_up(self, **environment: str) -> tuple[int, str]:
        """The exit status and the output."""
        with self.start(**environment) as process:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, output

    @property
    def calls(self) -> list[str]:
        return (self.root / "uv.calls").read_text().splitlines()

    def _write_wheel(self) -> Path:
        path = self.root / "wheels" / "uv-0.0.1-py3-none-any.whl"
        path.parent.mkdir(parents=True)
        info = "uv-0.0.1.dist-info"
        files = {
            "uv-0.0.1.data/scripts/uv": UV,
            f"{info}/METADATA": "Metadata-Version: 2.1\nName: uv\nVersion: 0.0.1\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        with zipfile.ZipFile(path, "w") as wheel:
            for name, text in files.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = 0o100755 << 16
                wheel.writestr(entry, text)
            record = "".join(f"{name},sha256={_digest(text)},{len(text)}\n" for name, text in files.items())
            wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
        return path


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path / "a clone")


def test_environment__is_built_once_and_again_when_the_lock_changes(clone: Clone) -> None:
    clone.write(".venv/bin/of-an-interrupted-set-up", "")
    clone.write(".venv.new/bin/of-an-interrupted-set-up", "")
    status, output = clone.set_up()
    assert (status, clone.calls) == (0, ["venv --quiet", "pip install", "pip install"]), output
    assert sorted(path.name for path in (clone.venv / "bin").iterdir()) == ["python", "sluice"]
    assert clone.set_up() == (0, "")
    clone.write("requirements/metrics.txt", "# changed\n")
    assert clone.set_up()[0] == 0
    assert len(clone.calls) == 6


def test_unreachable_index__leaves_the_environment_and_names_the_cure(clone: Clone) -> None:
    assert clone.set_up()[0] == 0
    stamp = (clone.venv / "sluice-stamp").read_text()
    clone.write("requirements/metrics.txt", "# changed\n")
    clone.write("uv.fails", "")
    status, output = clone.set_up()
    assert status == 1
    assert "  error: no route to the index\nset-up: uv failed (see above). Check the disk and the network" in output
    assert (clone.venv / "sluice-stamp").read_text() == stamp


def test_redirected_installation__is_detected(clone: Clone, tmp_path: Path) -> None:
    status, output = clone.set_up(PIP_PREFIX=str(tmp_path / "elsewhere"))
    assert status == 1
    assert output.endswith("set-up: pip succeeded but installed elsewhere; check `python3 -m pip config list`.\n")
    clone.write("uv.redirected", "")
    status, output = clone.set_up()
    assert status == 1
    assert output.endswith("set-up: packages were installed elsewhere; check the [pip] section of your uv.toml.\n")
    assert not clone.venv.exists()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Child processes receive SIGINT even if these tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_concurrent_set_up__waits_and_can_be_interrupted(clone: Clone) -> None:
    (clone.root / ".cache").mkdir()
    with (clone.root / ".cache" / "set-up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with clone.start() as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "set-up: waiting for another set-up of this clone\n"
            waiting.send_signal(signal.SIGINT)
            output, _ = waiting.communicate(timeout=TIMEOUT_S)
    assert (waiting.returncode, output) == (130, "\nset-up: interrupted; run the same command again to start over\n")


def test_folder_that_cannot_be_written__is_named(clone: Clone) -> None:
    clone.write(".cache", "")
    assert clone.set_up() == (1, f"set-up: Not a directory: {clone.root}/.cache/tmp\n")


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """An environment that is up to date for `dev`."""
    venv = tmp_path / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to(sys.executable)
    (venv / "sluice-stamp").write_text(f"dev {fingerprint('dev', venv)}")
    return venv


def test_environment__serves_smaller_purposes(venv: Path) -> None:
    assert [purpose for purpose in bootstrap.REQUIREMENTS if is_up_to_date(purpose, venv)] == ["run", "dev"]


def test_environment__of_another_folder_or_python_or_without_its_python__is_rebuilt(
    venv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_up_to_date("dev", venv.rename(venv.with_name("moved")))
    venv.with_name("moved").rename(venv)
    with monkeypatch.context() as other:
        other.setattr(bootstrap, "VERSION", "3.10")
        assert not is_up_to_date("dev", venv)
    assert is_up_to_date("dev", venv)
    (venv / "bin" / "python").unlink()
    assert not is_up_to_date("dev", venv)


def test_package_sources_of_pip__apply_to_uv() -> None:
    configuration = "global.index-url='https://file'\nglobal.target='/elsewhere'\n:env:.index-url='https://shell'\n"
    found = uv_environment({"UV_TARGET": "/elsewhere", "UV_INDEX": "https://own", "HOME": "/home"}, configuration)
    assert {name: value for name, value in found.items() if "INDEX" in name or "TARGET" in name} == {
        "UV_DEFAULT_INDEX": "https://shell",
        "UV_INDEX": "https://own",
    }
    assert found["HOME"] == "/home"


def test_python_without_venv__is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetUpError, match=r"lacks venv and ensurepip\..* apt install python3-venv"):
        check_machine("run")


def test_python_without_wheels__is_refused_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "NEWEST_PYTHON", (3, 10))
    with pytest.raises(SetUpError, match=r"is too new: .* Use 3\.11 to 3\.10, for example: make run PYTHON="):
        check_machine("run")


def test_full_disk__is_refused_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=400e6))
    with pytest.raises(SetUpError, match=r"1000 MB of free disk are needed at /.+; 400 MB are free\."):
        check_machine("run")

"""`deploy/compose/make-secrets`: containers can read what they mount, and other users can read no secret."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = Path("deploy/compose")
SERVICES = yaml.safe_load((ROOT / FOLDER / "compose.yaml").read_text())["services"].values()
SOURCES = {volume.split(":")[0] for service in SERVICES for volume in service.get("volumes", ())}
MOUNTED = {os.path.normpath(FOLDER / source) for source in SOURCES if source.startswith(".")}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The script and all mounted files, as `git clone` creates them under umask 077."""
    for path in (str(FOLDER / "make-secrets"), *MOUNTED):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy2
        copy(ROOT / path, tmp_path / path)
    for file in tmp_path.rglob("*"):
        file.chmod(file.stat().st_mode & 0o700)
    return tmp_path


def make_secrets(clone: Path, **environment: str) -> dict[str, str]:
    """Run the script and return the content of every secret."""
    inherited = {"PATH": os.environ["PATH"]}
    subprocess.run([clone / FOLDER / "make-secrets"], check=True, umask=0o077, env=inherited | environment)
    return {file.name: file.read_text() for file in (clone / FOLDER / "secrets").iterdir()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_mounted_files__are_readable_under_any_umask(clone: Path) -> None:
    make_secrets(clone)
    found = [file for path in MOUNTED for file in (clone / path, *(clone / path).rglob("*"))]
    assert len(found) > len(MOUNTED)
    needed = {file: 0o005 if file.is_dir() else 0o004 for file in found}
    assert [file for file, bits in needed.items() if mode(file) & bits != bits] == []


def test_secrets__are_in_a_closed_folder_and_created_once(clone: Path) -> None:
    assert make_secrets(clone) == make_secrets(clone)
    folder = clone / FOLDER / "secrets"
    assert mode(folder) == 0o700
    writable = {
        folder / "gemini-api-key",
        folder / "webhook-url",
        folder / "webhook-token",
        folder / "webhook-signing-key",
    }
    assert {file for file in folder.iterdir() if mode(file) == 0o644} == writable
    assert {mode(file) for file in set(folder.iterdir()) - writable} == {0o444}


def test_gemini_key__is_replaced_by_every_run_that_has_one(clone: Path) -> None:
    assert make_secrets(clone)["gemini-api-key"] == "\n"
    assert make_secrets(clone, GEMINI_API_KEY="one")["gemini-api-key"] == "one\n"
    assert make_secrets(clone, GEMINI_API_KEY="two")["gemini-api-key"] == "two\n"
    assert make_secrets(clone)["gemini-api-key"] == "two\n"


@pytest.mark.parametrize("line", ["GEMINI_API_KEY=one", "export GEMINI_API_KEY=one", "GEMINI_API_KEY='one'"])
def test_gemini_key__is_read_from_dotenv_unless_the_environment_has_one(clone: Path, line: str) -> None:
    (clone / ".env").write_text(f"#GEMINI_API_KEY=other\n{line}\nGEMINI_MODEL=m\n")
    assert make_secrets(clone)["gemini-api-key"] == "one\n"
    assert make_secrets(clone, GEMINI_API_KEY="two")["gemini-api-key"] == "two\n"


def test_script__creates_secrets_elsewhere(clone: Path) -> None:
    subprocess.run([clone / FOLDER / "make-secrets", clone / "elsewhere"], check=True)
    assert (clone / "elsewhere" / "database-url").exists()

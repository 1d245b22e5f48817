"""`deploy/compose/make-secrets`: what containers mount they can read, and the secrets are nobody else's."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = Path("deploy/compose")


def mounted(name: str) -> set[str]:
    """What containers mount of this repository, as paths from its root."""
    services = yaml.safe_load((ROOT / FOLDER / name).read_text())["services"].values()
    sources = {volume.split(":")[0] for service in services for volume in service.get("volumes", ())}
    return {os.path.normpath(FOLDER / source) for source in sources if source.startswith(".")}


MOUNTED = mounted("compose.yaml") | mounted("compose.dev.yaml")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is mounted and the script, as `git clone` makes them under umask 077."""
    for path in (str(FOLDER / "make-secrets"), *MOUNTED):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy2
        copy(ROOT / path, tmp_path / path)
    for file in tmp_path.rglob("*"):
        file.chmod(file.stat().st_mode & 0o700)
    return tmp_path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_containers_mount__is_readable_for_their_users_whatever_the_umask(clone: Path) -> None:
    subprocess.run([clone / FOLDER / "make-secrets"], check=True, umask=0o077)
    found = [file for path in MOUNTED for file in (clone / path, *(clone / path).rglob("*"))]
    assert len(found) > len(MOUNTED)
    needed = {file: 0o005 if file.is_dir() else 0o004 for file in found}
    assert [file for file, bits in needed.items() if mode(file) & bits != bits] == []


def test_secrets__lie_in_a_closed_folder_and_are_made_once(clone: Path) -> None:
    folder = clone / FOLDER / "secrets"
    made = []
    for _ in range(2):
        subprocess.run([clone / FOLDER / "make-secrets"], check=True, umask=0o077)
        made.append({file.name: file.read_text() for file in folder.iterdir()})
    assert made[0] == made[1]
    assert mode(folder) == 0o700
    theirs = {folder / "gemini-api-key", folder / "webhook-url"}  # what the user writes himself
    assert {file for file in folder.iterdir() if mode(file) == 0o644} == theirs
    assert {mode(file) for file in set(folder.iterdir()) - theirs} == {0o444}


def test_script_without_the_sources__makes_the_secrets(clone: Path) -> None:
    shutil.rmtree(clone / "services")
    subprocess.run([clone / FOLDER / "make-secrets", clone / "elsewhere"], check=True)
    assert (clone / "elsewhere" / "database-url").exists()

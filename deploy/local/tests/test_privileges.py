"""PostgreSQL never runs as root and can write to its folder, whichever user starts it."""

import os
import subprocess
from pathlib import Path

import pytest

from launcher.processes import Identity, NoIdentityError, give, unprivileged

ID = Path("/usr/bin/id")


@pytest.mark.parametrize("mode", [0o755, 0o700])
def test_identity__is_not_root_and_writes_even_below_a_closed_folder(tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=mode)
    folder = closed / "state"
    folder.mkdir(mode=0o700)
    identity = unprivileged(folder, ID)
    done = subprocess.run(
        [*identity.prefix, "sh", "-c", 'id -u && touch "$1/written"', "sh", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        **identity.options,
    )
    assert done.stdout.strip() != "0"
    assert (folder / "written").stat().st_uid == identity.uid


def test_program__that_cannot_be_run__is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(NoIdentityError, match="set DATABASE_URL"):
        unprivileged(tmp_path, tmp_path / "missing")


def test_give__does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "file").touch()
    (tmp_path / "state").mkdir()
    identity = Identity((), 65_534, 65_534, switches=True)
    for name, target in (("data", "ours"), ("password", "ours/file")):
        (tmp_path / "state" / name).symlink_to(tmp_path / target)
        give(tmp_path / "state" / name, identity)
    assert {path.stat().st_uid for path in (tmp_path / "ours", tmp_path / "ours" / "file")} == {os.geteuid()}


def test_give__includes_the_content_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "given" / "deep").mkdir(parents=True)
    (tmp_path / "given" / "deep" / "file").touch()
    identity = unprivileged(tmp_path, ID)
    give(tmp_path / "given", identity)
    owners = {path.stat().st_uid for path in (tmp_path / "given").rglob("*")}
    assert owners == {identity.uid if os.geteuid() == 0 else os.geteuid()}

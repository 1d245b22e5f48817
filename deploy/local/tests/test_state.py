"""The state folder: its owner, its lock and its secrets."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from launcher.state import Running, StateError, claim, held, holder, kept_secret

MINE = Running(pid=4711, url="http://127.0.0.1:8000")


def test_claim__makes_the_folder_private(tmp_path: Path) -> None:
    mode = claim(tmp_path / "state").stat().st_mode & 0o777
    assert mode == (0o711 if os.geteuid() == 0 else 0o700)


def test_claim__folder_of_another_user__is_refused_with_the_cure(tmp_path: Path) -> None:
    foreign = Path("/")
    if os.geteuid() == 0:
        foreign = tmp_path / "foreign"
        foreign.mkdir()
        os.chown(foreign, 12345, 12345)
    with pytest.raises(StateError, match=r"belongs to .+, and this is .+\. Continue as .+ or delete it and its data"):
        claim(foreign)


def test_holder__is_known_until_the_lock_is_released(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with held(tmp_path, MINE):
        assert holder(tmp_path) == MINE
    assert holder(tmp_path) is None


def test_held__twice__is_refused_and_names_the_first_holder(tmp_path: Path) -> None:
    with held(tmp_path, MINE), pytest.raises(StateError, match=r"at http://127.0.0.1:8000 \(pid 4711\)"):
        with held(tmp_path, Running(pid=1, url="")):
            raise AssertionError("two hold it")


def test_held__during_a_call_of_holder__retries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "launcher.lock").open("a+") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _seconds: fcntl.flock(asking, fcntl.LOCK_UN))
        with held(tmp_path, MINE):
            assert holder(tmp_path) == MINE


def test_kept_secret__is_created_once_and_private(tmp_path: Path) -> None:
    first = kept_secret(tmp_path / "token")
    assert len(first) >= 32
    assert kept_secret(tmp_path / "token") == first
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_kept_secret__is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power cut could leave an empty file, and the cluster would refuse the empty password."""
    synced: list[tuple[int, bool]] = []
    path = tmp_path / "token"
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((os.fstat(fd).st_size, path.exists())))
    assert synced == [(len(kept_secret(path)), False)]

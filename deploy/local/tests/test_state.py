"""The state folder: whose it is, and who holds it."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from launcher.secret import kept_secret
from launcher.state import Running, StateError, claim, held, holder

MINE = Running(pid=4711, url="http://127.0.0.1:8000")


def test_claim__makes_it_private(tmp_path: Path) -> None:
    mode = claim(tmp_path / "state").stat().st_mode & 0o777
    assert mode == (0o711 if os.geteuid() == 0 else 0o700)


def test_claim_of_another_users_folder__is_refused_with_the_cure(tmp_path: Path) -> None:
    foreign = Path("/")
    if os.geteuid() == 0:
        foreign = tmp_path / "foreign"
        foreign.mkdir()
        os.chown(foreign, 12345, 12345)
    with pytest.raises(StateError, match=r"belongs to .+, and this is .+\. Go on as .+ or delete it"):
        claim(foreign)


def test_held__tells_who_holds_it_until_it_is_let_go(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with held(tmp_path, MINE):
        assert holder(tmp_path) == MINE
    assert holder(tmp_path) is None


def test_held_twice__is_refused_and_names_the_first(tmp_path: Path) -> None:
    with held(tmp_path, MINE), pytest.raises(StateError, match=r"at http://127.0.0.1:8000 \(pid 4711\)"):
        with held(tmp_path, Running(pid=1, url="")):
            raise AssertionError("two hold it")


def test_held_while_somebody_asks_who_holds_it__waits_for_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "launcher.lock").open("a+") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        monkeypatch.setattr(time, "sleep", lambda _seconds: fcntl.flock(asking, fcntl.LOCK_UN))
        with held(tmp_path, MINE):
            assert holder(tmp_path) == MINE


def test_kept_secret__is_made_once_and_private(tmp_path: Path) -> None:
    first = kept_secret(tmp_path / "token")
    assert len(first) >= 32
    assert kept_secret(tmp_path / "token") == first
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_kept_secret__is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut could else leave an empty file, which no cluster made with the secret lets in."""
    synced: list[tuple[int, bool]] = []
    path = tmp_path / "token"
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((os.fstat(fd).st_size, path.exists())))
    assert synced == [(len(kept_secret(path)), False)]

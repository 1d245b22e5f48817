"""A folder has one living owner, whatever the order in which its owner and an adopter come."""

import os
from pathlib import Path

from common.journal.lock import acquire_directory, remove_directory, try_lock_directory


def test_claimed_folder__cannot_be_locked_by_another(tmp_path: Path) -> None:
    directory, lock = acquire_directory(tmp_path)
    assert try_lock_directory(directory) is None
    os.close(lock)
    second = try_lock_directory(directory)
    assert second is not None
    os.close(second)


def test_folder_removed_between_making_and_locking__is_no_longer_lockable(tmp_path: Path) -> None:
    directory = tmp_path / "made"
    directory.mkdir()
    lock = try_lock_directory(directory)
    assert lock is not None
    late = os.open(directory / "lock", os.O_RDWR)  # another process, between its open and its flock
    remove_directory(directory)
    os.close(lock)
    assert try_lock_directory(directory) is None
    os.close(late)


def test_lock_file_replaced__counts_as_lost(tmp_path: Path) -> None:
    directory, lock = acquire_directory(tmp_path)
    (directory / "lock").unlink()
    os.close(lock)
    again = try_lock_directory(directory)
    assert again is not None
    os.close(again)


def test_folder_with_other_content__is_not_removed(tmp_path: Path) -> None:
    directory, lock = acquire_directory(tmp_path)
    (directory / "note").touch()
    remove_directory(directory)
    os.close(lock)
    assert (directory / "note").exists()

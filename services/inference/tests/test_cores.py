"""Tests of the core count."""

from pathlib import Path

import pytest

from inference.cores import usable_cores


@pytest.mark.parametrize("quota", ["50000 100000", "100000 100000"])
def test_container_quota__bounds_the_cores(tmp_path: Path, quota: str) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    assert usable_cores(path) == 1


@pytest.mark.parametrize("quota", ["max 100000", "", "9900000 100000"])
def test_no_quota_or_a_large_one__leaves_the_machines_cores(tmp_path: Path, quota: str) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(quota)
    assert usable_cores(path) == usable_cores(tmp_path / "absent") >= 1

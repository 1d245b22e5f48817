"""Tests of the core count."""

from pathlib import Path

import pytest

from inference.engines.factory import usable_cores


@pytest.mark.parametrize("quota", ["50000 100000", "100000 100000"])
def test_container_quota__bounds_the_cores(tmp_path: Path, quota: str) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path) == 1


@pytest.mark.parametrize("quota", ["max 100000", "", "9900000 100000"])
def test_no_quota_or_a_large_one__leaves_all_cores(tmp_path: Path, quota: str) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    assert usable_cores(tmp_path) == usable_cores(tmp_path / "absent") >= 1


@pytest.mark.parametrize(("quota", "is_bound"), [("50000\n", True), ("100000\n", True), ("-1\n", False)])
def test_cgroup_v1_quota__bounds_the_cores(tmp_path: Path, quota: str, is_bound: bool) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == (1 if is_bound else usable_cores(tmp_path / "absent"))

"""Tests of the core count."""

from pathlib import Path

import pytest

from inference.engines.factory import usable_cores


@pytest.mark.parametrize(
    ("files", "is_bound"),
    [
        ({"cpu.max": "50000 100000"}, True),
        ({"cpu.max": "100000 100000"}, True),
        ({"cpu.max": "max 100000"}, False),
        ({"cpu.max": ""}, False),
        ({"cpu.max": "9900000 100000"}, False),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, True),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, False),
    ],
)
def test_container_quota__bounds_the_cores(tmp_path: Path, files: dict[str, str], is_bound: bool) -> None:
    (tmp_path / "cpu").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    all_cores = usable_cores(tmp_path / "absent")
    assert usable_cores(tmp_path) == (1 if is_bound else all_cores)

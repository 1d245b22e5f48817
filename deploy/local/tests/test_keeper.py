"""Limits of starting and stopping a service, and errors that must not stop it."""

import asyncio
import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.keeper import Keeper, Patience, StartError, log_path, pid_file
from launcher.logs import Console
from launcher.services import Service

TIMEOUT_S = 60
MakeKeeper = Callable[..., Keeper]


@pytest.fixture
def keeper_of(tmp_path: Path) -> MakeKeeper:
    """Call it with a command to get the keeper of a service that never becomes ready."""
    for folder in (pid_file(tmp_path, "stub").parent, log_path(tmp_path, "stub").parent):
        folder.mkdir()

    def keeper(*argv: str) -> Keeper:
        service = Service("stub", argv, port=9, ops_port=9)
        return Keeper(service, {}, tmp_path, Console(io.StringIO()), Patience(first_restart_s=0.01))

    return keeper


async def test_full_disk__does_not_stop_a_service_that_logs(tmp_path: Path, keeper_of: MakeKeeper) -> None:
    log_path(tmp_path, "stub").symlink_to("/dev/full")
    done = tmp_path / "done"
    program = f"import pathlib; [print('x' * 99) for _ in range(10_000)]; pathlib.Path({str(done)!r}).touch(); exit(2)"
    keeper = keeper_of(sys.executable, "-c", program)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            with pytest.raises(StartError):
                await keeper.keep()
    finally:
        keeper.kill()
    assert done.exists()


async def test_missing_program__is_retried_before_the_start_fails(keeper_of: MakeKeeper, tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"stub does not start \(exit 127\)"):
        await keeper_of(str(tmp_path / "gone")).keep()

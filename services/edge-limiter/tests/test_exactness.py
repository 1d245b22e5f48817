"""The promise under disturbance, briefly; `python loadtests/edge/exactness.py --seconds 60` is the long run."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from edge.exactness import WINDOW_US, Try, judge

from edge_limiter.lane import Ask
from edge_limiter.store import PostgresLog
from launcher.postgres import Postgres
from launcher.testing import migrate

SCRIPT = Path(__file__).parents[3] / "loadtests" / "edge" / "exactness.py"
SECONDS = os.environ.get("EXACTNESS_SECONDS", "5")
LIMIT = 20


def test_four_replicas_disturbed__neither_exceed_the_limit_nor_refuse_what_fits() -> None:
    run = subprocess.run([sys.executable, str(SCRIPT), "--seconds", SECONDS], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(run.stdout)
    assert result["committed units"] >= result["admitted"] > 0
    assert result["tries judged"] > 100
    assert result["restarts"] == 2


@pytest.mark.parametrize(
    ("tries", "wrong"),
    [
        ([Try(0, 9, 1, 9), Try(WINDOW_US, 9, 1, 9)], None),
        ([Try(0, 9, 1, 9), Try(WINDOW_US - 1, 1, 1, 1)], "windows over the limit"),
        ([Try(0, 4, 2, 4), Try(1, 2, 1, 2)], "windows over the limit"),
        ([Try(0, 5, 1, 4)], "refused with room"),
        ([Try(0, 8, 1, 8), Try(1, 1, 1, 0)], "refused with room"),
        ([Try(0, 8, 1, 8), Try(1, 1, 2, 0)], None),
        ([Try(5, 1, 1, 1), Try(4, 1, 1, 1)], "clock went back"),
    ],
)
def test_oracle__tells_what_is_wrong(tries: list[Try], wrong: str | None) -> None:
    assert [name for name, count in judge(tries).items() if count] == ([wrong] if wrong else [])


@pytest.mark.parametrize(("durable", "extra"), [(False, LIMIT), (True, 0)])
async def test_killed_server__forgets_at_most_one_limit_and_nothing_when_durable(
    own_postgres: Callable[[], Postgres], durable: bool, extra: int
) -> None:
    server = own_postgres()
    migrate("edge_limiter", server.url())
    log = PostgresLog(server.url(), durable=durable, on_change=lambda up, reason: None)
    task = asyncio.create_task(log.run())
    ask = [Ask(b"k", 1, 1, LIMIT, 600)]
    await log.wait_up()
    admitted = sum([(await log.decide(ask, 20))[0].admitted for _ in range(LIMIT)])
    server.kill()
    server.start()
    async with asyncio.timeout(20):
        while not log.is_up or await _is_stale(log):
            await asyncio.sleep(0.01)
    admitted += sum([(await log.decide(ask, 20))[0].admitted for _ in range(2 * LIMIT)])
    assert LIMIT <= admitted <= LIMIT + extra
    task.cancel()
    await asyncio.wait([task])


async def _is_stale(log: PostgresLog) -> bool:
    """Whether what looks like a connection is one to the killed server."""
    try:
        await log.decide([Ask(b"probe", 1, 1, LIMIT, 600)], 20)
    except Exception:
        return True
    return False

"""The real process, `python -m inference`, killed and started again."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import psutil

from launcher.testing import until_ready

SERVICE = [sys.executable, "-m", "inference"]


@asynccontextmanager
async def running(settings: dict[str, Any]) -> AsyncIterator[subprocess.Popen[bytes]]:
    """Start the service in a process and wait until it is ready."""
    variables = {name.upper(): str(value) for name, value in settings.items()}
    process = subprocess.Popen(SERVICE, env={**os.environ, **variables}, stdout=subprocess.DEVNULL)
    try:
        await until_ready(settings["inference_ops_port"])
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        await asyncio.to_thread(process.wait, 30)


async def test_killed_service__publishes_every_answer_after_a_restart(settings: dict[str, Any], recorded: Any) -> None:
    """Redis is down in between, so only the journal can hold the events."""
    without_redis = {**settings, "redis_port": 1, "inference_max_wait_s": 60, "inference_timeout_s": 60}
    async with running(without_redis) as process, aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{settings['inference_port']}/predict"
        answered = await _ask_until_killed(session, url, process)
    assert process.returncode == -signal.SIGKILL
    assert len(answered) >= 20
    async with running(settings):
        found: set[str] = set()
        while not found >= answered:  # unanswered ones may be on the stream too
            found = {event["request_id"] for event in await recorded(len(found) + 1)}


async def _ask_until_killed(session: aiohttp.ClientSession, url: str, process: subprocess.Popen[bytes]) -> set[str]:
    """Return the ids answered by a process that is killed under load."""
    answered: set[str] = set()

    async def ask(number: int) -> None:
        try:
            async with session.post(url, json={"text": f"good {number}"}) as response:
                assert response.status == 200
                answered.add((await response.json())["request_id"])
        except (aiohttp.ClientError, OSError):
            return
        if len(answered) == 20:
            process.kill()

    await asyncio.gather(*(ask(number) for number in range(60)))
    return answered


async def test_killed_scoring_process__loses_no_text(settings: dict[str, Any]) -> None:
    url = f"http://127.0.0.1:{settings['inference_port']}/predict/batch"
    async with running(settings) as process, aiohttp.ClientSession() as session:
        [scoring] = psutil.Process(process.pid).children()
        ready_s = sum(scoring.cpu_times()[:2])
        texts = [f"Story {number}, long and winding. " * 80 for number in range(32)]
        patience = {"X-Request-Timeout-Ms": "120000"}
        asking = asyncio.create_task(session.post(url, json={"texts": texts}, headers=patience))
        while sum(scoring.cpu_times()[:2]) < ready_s + 0.2:  # until it is scoring
            await asyncio.sleep(0.01)
        scoring.kill()
        async with await asking as response:
            body = await response.json()
    assert response.status == 200
    assert all("label" in item for item in body["predictions"])


async def test_idle_scoring_process_that_is_killed__is_replaced(settings: dict[str, Any]) -> None:
    two = {**settings, "inference_workers": 2}
    async with running(two) as process, aiohttp.ClientSession() as session, asyncio.timeout(60):
        first = psutil.Process(process.pid).children()
        for scoring in first:
            scoring.kill()
        while len(set(psutil.Process(process.pid).children()) - set(first)) < 2:
            await asyncio.sleep(0.02)
        await until_ready(settings["inference_ops_port"])
        url = f"http://127.0.0.1:{settings['inference_port']}/predict"
        async with session.post(url, json={"text": "good"}) as response:
            assert response.status == 200


def test_library_variables__are_set_before_import_unless_given() -> None:
    program = """
import os, sys
from inference.__main__ import main
assert "numpy" not in sys.modules
sys.argv[1:] = ["--version"]
try:
    main()
finally:
    names = ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "ORT_DISABLE_TELEMETRY")
    print(*(os.environ[name] for name in names))
"""
    unset = {"TOKENIZERS_PARALLELISM", "ORT_DISABLE_TELEMETRY"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment["OMP_NUM_THREADS"] = "3"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "3 false 1"


async def test_bundled_model__knows_good_from_bad(settings: dict[str, Any]) -> None:
    async with running(settings), aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{settings['inference_port']}/predict/batch"
        texts = ["A wonderful, moving film.", "A dull and lifeless mess.", "A wonderful, moving film. " * 300]
        async with session.post(url, json={"texts": texts}) as response:
            body = await response.json()
    assert [item["label"] for item in body["predictions"]] == ["POSITIVE", "NEGATIVE", "POSITIVE"]
    assert [item["truncated"] for item in body["predictions"]] == [False, False, True]
    assert len(body["model"]["revision"]) >= 8

"""The engine in a process of its own: the same scores, errors that say what happened, and no process left behind."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from inference.engines.base import ModelError, rows_of
from inference.engines.client import ProcessClient, ScoringProcessFailed
from inference.engines.onnx import OnnxEngine
from inference.models import bundle
from inference.models.bundle import Bundle


@pytest.fixture(scope="module")
def bundled() -> Bundle:
    return bundle.load()


@pytest.fixture
async def host(bundled: Bundle) -> AsyncIterator[ProcessClient]:
    host = await ProcessClient.start(bundled)
    yield host
    await host.close()


async def test_answers__are_those_of_the_engine_in_this_process_to_the_bit(
    host: ProcessClient, bundled: Bundle
) -> None:
    here = OnnxEngine(bundled)
    texts = [*(each.text for each in bundled.reference), "much too long " * 500]
    read = here.encode(texts)
    answer = await host.score(texts)
    assert answer.rows == rows_of(here.score(read), read)
    assert [row.truncated for row in answer.rows] == [False] * (len(texts) - 1) + [True]
    assert answer.tokenize_s > 0


async def test_calls_at_once__take_turns_and_each_gets_its_own(host: ProcessClient) -> None:
    texts = [f"film number {number}" for number in range(20)]
    alone = [(await host.score([text])).rows for text in texts]
    assert [answer.rows for answer in await asyncio.gather(*(host.score([text]) for text in texts))] == alone


async def test_call_that_was_cancelled__leaves_the_others_their_answers(host: ProcessClient) -> None:
    expected = await host.score(["good"])
    os.kill(host.pid, signal.SIGSTOP)
    left, stays = (asyncio.create_task(host.score([text])) for text in ("bad", "good"))
    await asyncio.sleep(0)
    left.cancel()
    os.kill(host.pid, signal.SIGCONT)
    assert (await stays).rows == expected.rows


async def test_text_that_cannot_be_sent__costs_nothing_but_itself(host: ProcessClient) -> None:
    with pytest.raises(UnicodeEncodeError):
        await host.score(["\ud800"])
    assert len((await host.score(["good"])).rows) == 1


async def test_process_that_was_killed__fails_every_batch_and_can_be_closed(host: ProcessClient) -> None:
    os.kill(host.pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(ScoringProcessFailed, match="gone"):
            await host.score(["good"])


async def test_process_that_was_killed_while_nobody_asked_it_anything__is_known_to_be_lost(host: ProcessClient) -> None:
    assert not host.exited.is_set()
    os.kill(host.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        await host.exited.wait()


async def test_process_that_hangs__is_killed_and_fails_every_batch(bundled: Bundle) -> None:
    host = await ProcessClient.start(bundled, patience_s=0.1)
    try:
        os.kill(host.pid, signal.SIGSTOP)
        with pytest.raises(ScoringProcessFailed, match="hangs"):
            await host.score(["good"])
        with pytest.raises(ScoringProcessFailed):  # gone, or still on its way out
            await host.score(["good"])
    finally:
        await host.close()
    assert not psutil.pid_exists(host.pid)


async def test_closed_host__leaves_no_process(bundled: Bundle) -> None:
    host = await ProcessClient.start(bundled)
    await host.close()
    assert not psutil.pid_exists(host.pid)


@pytest.mark.parametrize("is_called_off", [False, True])
async def test_process_that_hangs_when_its_host_is_closed__is_killed(
    bundled: Bundle, monkeypatch: pytest.MonkeyPatch, is_called_off: bool
) -> None:
    monkeypatch.setattr("inference.engines.client._END_S", 600.0 if is_called_off else 0.1)
    host = await ProcessClient.start(bundled)
    scoring = psutil.Process(host.pid)
    os.kill(host.pid, signal.SIGSTOP)
    closing = asyncio.create_task(host.close())
    await asyncio.sleep(0)
    if is_called_off:
        closing.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError) if is_called_off else nullcontext():
            await closing
    _, alive = await asyncio.to_thread(psutil.wait_procs, [scoring], timeout=20)
    assert not alive


async def test_start_that_is_called_off__leaves_no_process(bundled: Bundle) -> None:
    before = set(psutil.Process().children())
    starting = asyncio.create_task(ProcessClient.start(bundled))
    async with asyncio.timeout(60):
        while not (started := set(psutil.Process().children()) - before):
            await asyncio.sleep(0)
        os.kill(started.copy().pop().pid, signal.SIGSTOP)  # it never says that it is ready
        for _ in range(100):
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    _, alive = await asyncio.to_thread(psutil.wait_procs, list(started), timeout=20)
    assert not alive


async def test_signals_for_the_service__do_not_end_the_process(host: ProcessClient) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(host.pid, number)
    assert len((await host.score(["good"])).rows) == 1


async def test_model_that_the_process_cannot_load__is_told(bundled: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        await ProcessClient.start(
            replace(bundled, folder=tmp_path / "nowhere", model=tmp_path / "nowhere" / "model.onnx")
        )


async def test_model_that_was_replaced_since_it_was_read__is_not_scored_with(bundled: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bundled.folder, folder)
    loaded = bundle.load(folder)
    card = folder / bundle.CARD
    card.write_text(card.read_text().replace(loaded.card.revision, "another"))
    sums = folder / bundle.CHECKSUMS
    lines = [line for line in sums.read_text().splitlines() if not line.endswith(bundle.CARD)]
    digest = hashlib.sha256(card.read_bytes()).hexdigest()
    sums.write_text("\n".join([*lines, f"{digest}  {bundle.CARD}", ""]))
    with pytest.raises(ModelError, match="only a new process"):
        await ProcessClient.start(loaded)


def test_scoring__leaves_nothing_in_the_home_of_its_user(tmp_path: Path) -> None:
    """ONNX Runtime would make an id of the machine there, and a file of what it tells its makers."""
    program = """
import asyncio
from inference.models import bundle
from inference.engines.client import ProcessClient

async def main():
    host = await ProcessClient.start(bundle.load())
    await host.score(["good"])
    await host.close()

asyncio.run(main())
"""
    told = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in told} | {"HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []


def test_service_that_was_killed__leaves_no_process() -> None:
    program = """
import asyncio
from inference.models import bundle
from inference.engines.client import ProcessClient

async def main():
    print((await ProcessClient.start(bundle.load())).pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        scoring = psutil.Process(int(service.stdout.readline()))
        service.kill()
    _, alive = psutil.wait_procs([scoring], timeout=20)
    assert not alive

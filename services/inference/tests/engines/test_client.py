"""The engine in a separate process: the same scores, clear errors, and no process left behind."""

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import nullcontext
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
async def client(bundled: Bundle) -> AsyncIterator[ProcessClient]:
    client = await ProcessClient.start(bundled)
    yield client
    await client.close()


async def test_answers__equal_the_engine_in_this_process_bit_for_bit(client: ProcessClient, bundled: Bundle) -> None:
    here = OnnxEngine(bundled)
    texts = [*(each.text for each in bundled.reference), "much too long " * 500]
    read = here.encode(texts)
    rows = await client.score(texts)
    assert rows == rows_of(here.score(read), read)
    assert [row.truncated for row in rows] == [False] * (len(texts) - 1) + [True]


async def test_concurrent_calls__each_get_their_own_answer(client: ProcessClient) -> None:
    texts = [f"film number {number}" for number in range(20)]
    alone = [await client.score([text]) for text in texts]
    assert await asyncio.gather(*(client.score([text]) for text in texts)) == alone


async def test_cancelled_call__leaves_other_answers_intact(client: ProcessClient) -> None:
    expected = await client.score(["good"])
    os.kill(client.pid, signal.SIGSTOP)
    left, stays = (asyncio.create_task(client.score([text])) for text in ("bad", "good"))
    await asyncio.sleep(0)
    left.cancel()
    os.kill(client.pid, signal.SIGCONT)
    assert await stays == expected


async def test_idle_process_that_is_killed__sets_exited(client: ProcessClient) -> None:
    assert not client.exited.is_set()
    os.kill(client.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        await client.exited.wait()


async def test_hanging_process__is_killed_and_fails_every_batch(bundled: Bundle) -> None:
    client = await ProcessClient.start(bundled, patience_s=0.1)
    try:
        os.kill(client.pid, signal.SIGSTOP)
        with pytest.raises(ScoringProcessFailed, match="hangs"):
            await client.score(["good"])
        with pytest.raises(ScoringProcessFailed):  # gone, or still on its way out
            await client.score(["good"])
    finally:
        await client.close()
    assert not psutil.pid_exists(client.pid)


@pytest.mark.parametrize("is_called_off", [False, True])
async def test_hanging_process__is_killed_on_close(
    bundled: Bundle, monkeypatch: pytest.MonkeyPatch, is_called_off: bool
) -> None:
    monkeypatch.setattr("inference.engines.client._END_S", 600.0 if is_called_off else 0.1)
    client = await ProcessClient.start(bundled)
    scoring = psutil.Process(client.pid)
    os.kill(client.pid, signal.SIGSTOP)
    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    if is_called_off:
        closing.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError) if is_called_off else nullcontext():
            await closing
    _, alive = await asyncio.to_thread(psutil.wait_procs, [scoring], timeout=20)
    assert not alive


async def test_cancelled_start__leaves_no_process(bundled: Bundle) -> None:
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


async def test_signals_for_the_service__do_not_end_the_process(client: ProcessClient) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(client.pid, number)
    assert len(await client.score(["good"])) == 1


async def test_model_replaced_since_it_was_read__fails_the_start(bundled: Bundle, tmp_path: Path) -> None:
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


def test_scoring__writes_nothing_to_the_home_folder(tmp_path: Path) -> None:
    """With telemetry, ONNX Runtime would write a machine id there."""
    program = """
import asyncio
from inference.models import bundle
from inference.engines.client import ProcessClient

async def main():
    client = await ProcessClient.start(bundle.load())
    await client.score(["good"])
    await client.close()

asyncio.run(main())
"""
    unset = {"ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environment = {name: value for name, value in os.environ.items() if name not in unset} | {"HOME": str(tmp_path)}
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

"""Settings, start-up failures, readiness and shutdown."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from common.runtime.settings import SettingsError, StartError, load
from common.service import BackgroundTaskFailed, serve
from inference.app import create_service
from inference.engines.base import Supervision
from inference.settings import InferenceSettings
from launcher.testing import until_ready


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INFERENCE_WORKERS", "-1"),
        ("INFERENCE_CACHE_BYTES", "-1"),
        ("INFERENCE_ENGINE", "tensorflow"),
        ("INFERENCE_TIMEOUT_S", "0"),
        ("INFERENCE_TYPO", "1"),
    ],
)
def test_wrong_setting__stops_the_start_naming_the_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load(InferenceSettings, {name: value})


async def test_model_that_events_cannot_name__stops_the_start(settings: dict[str, Any], stage: Any) -> None:
    stage.card = replace(stage.card, name="n" * 129)
    service = create_service(InferenceSettings(**settings), stage.plan)
    with pytest.raises(StartError, match=r"model: String should have at most \d+ characters"):
        await serve(service)
    assert stage.closed == stage.made == 1


@pytest.mark.parametrize("hangs", [True, False])
async def test_worker_without_a_working_engine__ends_the_process(
    settings: dict[str, Any], stage: Any, hangs: bool
) -> None:
    supervision = Supervision(backoff_s=0.0001, attempts=2, lost_after_s=0.01 if hangs else 60.0)
    service = create_service(InferenceSettings(**settings), replace(stage.plan, supervision=supervision))
    running = asyncio.create_task(serve(service))
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        await until_ready(service.listen.ops_port)
        stage.is_warm = True
        if hangs:
            stage.hold()
        else:
            stage.break_scores = stage.break_makes = 1 << 30
        url = f"http://127.0.0.1:{service.listen.port}/predict"
        async with session.post(url, json={"text": "good"}, headers={"X-Request-Timeout-Ms": "100"}) as response:
            assert response.status == 504
        await service.fatal.wait()
        stage.release()
        with pytest.raises(BackgroundTaskFailed):
            await running


async def test_unusable_journal_folder__stops_the_start(settings: dict[str, Any], tmp_path: Path, stage: Any) -> None:
    (tmp_path / "file").touch()
    changed = {**settings, "events_journal_dir": tmp_path / "file" / "journal"}
    service = create_service(InferenceSettings(**changed), stage.plan)
    with pytest.raises(StartError):
        await serve(service)


async def test_readiness__fails_without_a_warm_engine_per_worker(start: Any, stage: Any) -> None:
    service = create_service(InferenceSettings(), stage.plan)
    assert await service.readiness.report() == ("failed", {"model": "failed"})
    client = await start()
    report = client.service.readiness.report
    while (await report())[0] != "ok":  # until the shipper has reached Redis
        await asyncio.sleep(0)
    stage.break_makes = 1 << 30
    stage.break_scores = 2
    request = asyncio.create_task(client.post("/predict", json={"text": "good"}))
    while (await report())[1]["model"] == "ok":  # until the thread has noticed
        await asyncio.sleep(0)
    assert (await report())[0] == "failed"
    stage.break_makes = 0
    assert (await request).status == 200
    assert (await report())[1]["model"] == "ok"


async def test_redis_down__is_degraded_and_predictions_continue(start: Any) -> None:
    client = await start(redis_port=1)
    assert (await client.post("/predict", json={"text": "good"})).status == 200
    report = client.service.readiness.report
    while (await report())[1]["events"] == "ok":  # until the shipper has noticed
        await asyncio.sleep(0)
    assert await report() == ("degraded", {"model": "ok", "events": "degraded"})


async def test_stop__answers_and_publishes_admitted_requests(
    settings: dict[str, Any], stage: Any, recorded: Any
) -> None:
    service = create_service(InferenceSettings(**settings), stage.plan)
    stop = asyncio.Event()
    running = asyncio.create_task(serve(service, stop=stop))
    url = f"http://127.0.0.1:{service.listen.port}/predict"
    async with aiohttp.ClientSession() as session:
        await until_ready(service.listen.ops_port)
        stage.is_warm = True
        stage.hold()
        request = asyncio.create_task(session.post(url, json={"text": "good"}))
        await stage.entered()
        stop.set()
        stage.release()
        assert (await request).status == 200
    await running
    [event] = await recorded(1)
    assert event["outcome"] == "ok"

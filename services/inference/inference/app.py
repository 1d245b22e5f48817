"""Builds the inference service and opens its resources."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from common.http.app import AppConfig, create_app
from common.http.openapi import add_openapi
from common.journal.journal import Journal
from common.journal.recorder import ClientHasher, Recorder, open_recorder
from common.runtime.metrics import HttpMetrics, create_registry
from common.runtime.readiness import Check, Readiness, State
from common.runtime.settings import StartError
from common.runtime.tasks import supervised
from common.service import Service
from common.stores.redis import create_client
from inference.api import huggingface, kserve_v1, moderations, native, open_inference, vllm
from inference.api.common import CLIENT_HASHER, ERRORS, PREDICTIONS, READINESS
from inference.api.load_shedding import gate
from inference.api.protocol_errors import add_protocol_errors
from inference.batching.batcher import Batcher
from inference.batching.worker import WorkerEvent
from inference.engines.base import EngineSpec, ModelError
from inference.engines.factory import select_engine
from inference.engines.usage import ScoringUsage
from inference.metrics import InferenceMetrics
from inference.prediction.predictor import Predictor
from inference.prediction.recorder import PredictionRecorder, require_recordable
from inference.prediction.service import PredictionService
from inference.settings import InferenceSettings

log = structlog.get_logger()

PIPE_DRAIN_S: Final = 5.0
SWITCH_S: Final = 0.0005
WATCH_S: Final = 1.0


def create_service(settings: InferenceSettings, given: EngineSpec | None = None) -> Service:
    """Return the service. Its model is loaded and warmed before the service port opens.

    `given` replaces the engine that the settings select.
    """
    registry = create_registry()
    registry.register(ScoringUsage())
    readiness, fatal = Readiness({"model": _loading}), asyncio.Event()
    config = AppConfig(HttpMetrics(registry), ERRORS, default_timeout_s=settings.inference_timeout_s)
    app = create_app(config)
    app[CLIENT_HASHER] = ClientHasher(settings.events_hash_key.get_secret_value())
    app.cleanup_ctx.append(_resources(settings, registry, readiness, fatal, given))
    app[READINESS] = readiness
    for protocol in (native, huggingface, open_inference, kserve_v1, vllm, moderations):
        protocol.add_routes(app)
    add_protocol_errors(app)
    add_openapi(
        app,
        title="Sluice inference",
        version=version("sluice-inference"),
        description="Scores texts in the protocols of Sluice, Hugging Face, Open Inference, KServe, vLLM and OpenAI.",
    )
    return Service(
        app,
        readiness,
        registry,
        settings.listen(),
        settings.sluice_drain_s,
        around=partial(gate, app, config),
        fatal=fatal,
    )


def _resources(
    settings: InferenceSettings,
    registry: CollectorRegistry,
    readiness: Readiness,
    fatal: asyncio.Event,
    given: EngineSpec | None,
) -> Callable[[web.Application], AsyncIterator[None]]:
    async def resources(app: web.Application) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.enter_context(_short_switch_interval())
            metrics = InferenceMetrics(registry)
            journal = await stack.enter_async_context(_recorder(settings, registry))
            batcher = await stack.enter_async_context(_batcher(settings, metrics, given))
            predictor = Predictor(batcher, batcher.card, settings.inference_cache_bytes, time.monotonic)
            metrics.watch(batcher)
            recorder = PredictionRecorder(
                journal.record, batcher.card, store_text=settings.events_store_text, wall_us=_wall_us
            )
            await stack.enter_async_context(supervised(recorder.run(), "refusal counters", fatal))
            await stack.enter_async_context(supervised(_watch(batcher), "watch for a lost worker", fatal))
            app[moderations.MODERATION] = moderations.parse_moderation(
                settings.inference_moderation_labels, settings.inference_moderation_threshold, batcher.card
            )
            app[PREDICTIONS] = PredictionService(predictor, recorder, metrics, time.monotonic)
            readiness.checks = {"model": _model_check(batcher), "events": journal.state}
            yield

    return resources


@contextmanager
def _short_switch_interval() -> Iterator[None]:
    """Hand Python's lock over sooner: with the default of 5 ms a busy loop would keep torch's threads waiting."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)


@asynccontextmanager
async def _recorder(settings: InferenceSettings, registry: CollectorRegistry) -> AsyncIterator[Recorder]:
    journal = Journal(
        settings.events_journal_dir,
        max_bytes=settings.events_journal_max_bytes,
        keep_s=settings.events_journal_keep_s,
    )
    redis = create_client(settings)
    try:
        async with open_recorder(
            journal, redis, when_full=settings.events_when_full, registry=registry, drain_s=PIPE_DRAIN_S
        ) as recorder:
            yield recorder
    finally:
        await redis.aclose()


@asynccontextmanager
async def _batcher(
    settings: InferenceSettings, metrics: InferenceMetrics, given: EngineSpec | None
) -> AsyncIterator[Batcher]:
    started_s = time.monotonic()
    with _start_errors():
        spec = given or await _select_engine(settings)
        spec = replace(
            spec,
            workers=settings.inference_workers or spec.workers,
            max_batch_tokens=settings.inference_max_batch_tokens or spec.max_batch_tokens,
        )
        batcher = Batcher(
            spec,
            settings.inference_max_wait_s,
            time.monotonic,
            on_batch=metrics.batch,
            on_event=_log_worker_event,
        )
        card = await batcher.start()
    try:
        with _start_errors():
            require_recordable(card)
        metrics.serves(card)
        log.info(
            "model ready",
            model=card.name,
            revision=card.revision,
            engine=card.engine,
            device=card.device,
            workers=spec.workers,
            ms=round((time.monotonic() - started_s) * 1000),
        )
        yield batcher
    finally:
        await batcher.close()


@contextmanager
def _start_errors() -> Iterator[None]:
    try:
        yield
    except ModelError as error:
        raise StartError(str(error)) from error


async def _select_engine(settings: InferenceSettings) -> EngineSpec:
    """In a thread, because it reads files and may import torch."""
    return await asyncio.to_thread(
        select_engine,
        settings.inference_engine,
        settings.inference_model,
        settings.inference_device,
        settings.inference_onnx_file,
    )


def _model_check(batcher: Batcher) -> Check:
    async def model() -> State:
        return batcher.state

    return model


def _log_worker_event(event: WorkerEvent) -> None:
    write = log.info if event.what == "restarted" else log.error
    write("scoring worker", worker=event.worker, what=event.what, cause=event.cause)


async def _watch(batcher: Batcher) -> None:
    """Return when a worker cannot replace its engine, or hangs for good: a new process may help, as with a GPU.

    A hung scoring process is killed sooner.
    """
    times = 0
    while times < 2:  # once may mean that this process was suspended
        await asyncio.sleep(WATCH_S)
        times = times + 1 if batcher.is_lost else 0
    log.error("scoring worker", what="lost")


async def _loading() -> State:
    return "failed"


def _wall_us() -> int:
    return time.time_ns() // 1000

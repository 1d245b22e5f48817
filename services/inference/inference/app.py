"""Builds the inference service: each object once, opened in order, closed in reverse."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry

from common.http.app import AppConfig, create_app
from common.http.openapi import add_openapi
from common.journal.journal import Journal
from common.journal.recorder import ClientHasher, EventPipeline, open_event_pipeline
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
from inference.batching.admission import Limits
from inference.batching.batcher import Batcher, BatchingConfig
from inference.batching.worker import WorkerEvent
from inference.engines.base import ModelError
from inference.engines.factory import EngineSpec, select_engine
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
    """The service, not yet listening. Its model is loaded and warmed at start-up, before the service port opens.

    `given` replaces the engine that the settings name.
    """
    registry = create_registry()
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
            stack.enter_context(_short_turns())
            instruments = InferenceMetrics(registry)
            pipe = await stack.enter_async_context(_event_pipe(settings, registry))
            batcher = await stack.enter_async_context(_batcher(settings, instruments, fatal, given))
            scorer = Predictor(batcher, batcher.card, settings.inference_cache_bytes, time.monotonic)
            instruments.watch(batcher, scorer)
            records = PredictionRecorder(
                pipe.recorder.record, batcher.card, store_text=settings.events_store_text, wall_us=_wall_us
            )
            await stack.enter_async_context(supervised(records.run(), "refusal counters", fatal))
            await stack.enter_async_context(supervised(_watch(batcher), "watch for a lost worker", fatal))
            app[moderations.MODERATION] = moderations.parse_moderation(
                settings.inference_moderation_labels, settings.inference_moderation_threshold, batcher.card
            )
            app[PREDICTIONS] = PredictionService(scorer, records, instruments, time.monotonic)
            readiness.checks = {"model": _model_check(batcher), "events": pipe.state}
            yield

    return resources


@contextmanager
def _short_turns() -> Iterator[None]:
    """Threads that want Python's lock get it sooner: for the usual 5 ms a busy loop could keep the scorers idle."""
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)


@asynccontextmanager
async def _event_pipe(settings: InferenceSettings, registry: CollectorRegistry) -> AsyncIterator[EventPipeline]:
    journal = Journal(
        settings.events_journal_dir,
        max_bytes=settings.events_journal_max_bytes,
        keep_s=settings.events_journal_keep_s,
    )
    redis = create_client(settings)
    try:
        async with open_event_pipeline(
            journal, redis, when_full=settings.events_when_full, registry=registry, drain_s=PIPE_DRAIN_S
        ) as pipe:
            yield pipe
    finally:
        await redis.aclose()


@asynccontextmanager
async def _batcher(
    settings: InferenceSettings, instruments: InferenceMetrics, fatal: asyncio.Event, given: EngineSpec | None
) -> AsyncIterator[Batcher]:
    started_s = time.monotonic()
    with _start_errors():
        chosen = given or await _plan(settings)
        sizes = BatchingConfig(
            workers=settings.inference_workers or chosen.workers,
            max_batch_tokens=settings.inference_max_batch_tokens or chosen.max_batch_tokens,
            limits=Limits(settings.inference_max_queue_tokens, settings.inference_max_wait_s),
            lanes=chosen.lanes,
        )
        batcher = Batcher(
            chosen.create,
            sizes,
            time.monotonic,
            on_read=instruments.read,
            on_batch=instruments.batch,
            restarts=chosen.restarts,
            on_worker=partial(_tell_of_worker, fatal),
        )
        card = await batcher.start()
    try:
        with _start_errors():
            require_recordable(card)
        instruments.serves(card)
        log.info(
            "model ready",
            model=card.name,
            revision=card.revision,
            engine=card.engine,
            device=card.device,
            workers=sizes.workers,
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


async def _plan(settings: InferenceSettings) -> EngineSpec:
    """Off the loop: it reads files, and may import torch."""
    return await asyncio.to_thread(
        select_engine, settings.inference_engine, settings.inference_model, settings.inference_device
    )


def _model_check(batcher: Batcher) -> Check:
    async def model() -> State:
        return batcher.state

    return model


def _tell_of_worker(fatal: asyncio.Event, event: WorkerEvent) -> None:
    """What no new engine mends, such as a GPU that failed, a new process may."""
    write = log.info if event.what == "restarted" else log.error
    write("scoring worker", worker=event.worker, what=event.what, cause=event.cause)
    if event.what == "gave up":
        fatal.set()


async def _watch(batcher: Batcher) -> None:
    """Ends when a worker hangs for good: over a GPU, for one. The onnx engine's scoring processes are ended sooner."""
    times = 0
    while times < 2:  # once it may be that this whole process was stopped for a while
        await asyncio.sleep(WATCH_S)
        times = times + 1 if batcher.is_lost else 0
    log.error("scoring worker", what="hangs")


async def _loading() -> State:
    return "failed"


def _wall_us() -> int:
    return time.time_ns() // 1000

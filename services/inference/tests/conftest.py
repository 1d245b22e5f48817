"""A scripted engine behind the real port, and the real app on a free port with a real Valkey behind it."""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp.test_utils import BaseTestServer, TestClient
from redis.asyncio import Redis

from common.contracts.events import EVENT_FIELD, STREAM
from common.http.server import Runner
from common.service import Service, create_runner
from inference.app import create_service
from inference.batching.batcher import Batcher
from inference.engines.base import Encoded, EngineClient, EngineSpec, ModelCard, Supervision
from inference.engines.thread import ThreadClient
from inference.settings import InferenceSettings

CARD: Final = ModelCard("fake", "r1", ("NEGATIVE", "POSITIVE"), 64, "fake", "cpu", known_weaknesses=("irony",))
_WORDS: Final = {"good": 1, "bad": 2, "poison": 3, "killer": 4}


class Stage:
    """Shared by all engines of one test: blocks them, breaks them and records what they scored."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, ...]]] = []
        self.scored: Counter[tuple[int, ...]] = Counter()  # answered by `score`, by ids
        self.card = CARD
        self.read = 0  # texts
        self.made = 0
        self.open = 0
        self.engines = 1  # open at once, at most
        self.closed = 0
        self.break_scores = 0  # calls of `score` that raise, whatever the text
        self.break_makes = 0
        self.is_warm = False  # until then batches are neither held nor remembered
        self._open = threading.Event()
        self._open.set()
        self._entered = threading.Semaphore(0)

    def make(self) -> "FakeEngine":
        self.made += 1
        if self.break_makes:
            self.break_makes -= 1
            raise RuntimeError("no device")
        self.open += 1
        assert self.open <= self.engines, "a device may not have memory for two"
        return FakeEngine(self)

    async def client(self) -> ThreadClient:
        """The scripted engine in threads, as a service runs it."""
        return await ThreadClient.start(self.make)

    @property
    def plan(self) -> EngineSpec:
        return EngineSpec(self.client, workers=1, max_batch_tokens=64)

    def hold(self) -> None:
        """From now on `score` waits until `release`."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def entered(self, calls: int = 1) -> None:
        """Wait until `score` was called so many times since the last wait."""
        for _ in range(calls):
            assert await asyncio.to_thread(self._entered.acquire, timeout=60)

    def encode(self, text: str) -> Encoded:
        """One token per word."""
        self.read += 1
        ids = (0, *(_WORDS.get(word, 100 + len(word)) for word in text.split()))
        return Encoded(ids[: CARD.max_tokens], len(ids) > CARD.max_tokens)

    @staticmethod
    def scores(text: Encoded) -> tuple[float, ...]:
        good, bad = (text.ids.count(_WORDS[word]) for word in ("good", "bad"))
        positive = (1 + good) / (2 + good + bad)
        return (1 - positive, positive)

    def score(self, batch: Sequence[Encoded]) -> list[tuple[float, ...]]:
        if self.is_warm:
            self.batches.append([text.ids for text in batch])
            self._entered.release()
            assert self._open.wait(60)
        if self.break_scores:
            self.break_scores -= 1
            raise RuntimeError("the device is gone")
        if any(_WORDS["poison"] in text.ids for text in batch):
            raise ValueError("a text that must not be in any message")
        if self.is_warm:
            self.scored.update(text.ids for text in batch)
        return [self.scores(text) for text in batch]


class FakeEngine:
    """One token per word, "good" is positive, "bad" negative; "unreadable", "panics", "poison" and "killer" fail."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._is_dead = False
        self.card = stage.card

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        if any("unreadable" in text for text in texts):
            raise ValueError("a text that must not be in any message")
        if any("panics" in text for text in texts):
            raise SystemExit("no Exception, as a panic of the tokenizer is none")
        return [self._stage.encode(text) for text in texts]

    def score(self, batch: Sequence[Encoded]) -> list[tuple[float, ...]]:
        self._is_dead |= any(_WORDS["killer"] in text.ids for text in batch)
        if self._is_dead:
            raise SystemExit("no Exception, and the end of this engine")
        return self._stage.score(batch)

    def close(self) -> None:
        self._stage.closed += 1
        self._stage.open -= 1


@pytest.fixture
def stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.release()


@pytest.fixture
async def start_batcher(stage: Stage) -> AsyncIterator[Callable[..., Awaitable[Batcher]]]:
    """Call it for a running batcher on the scripted engine."""
    async with AsyncExitStack() as closing:

        async def started(
            workers: int = 1,
            max_batch_tokens: int = 64,
            max_wait_s: float = 60.0,
            create: Callable[[], Awaitable[EngineClient]] = stage.client,
            now: Callable[[], float] = time.monotonic,
            pipeline_depth: int = 1,
            attempts: int = 8,
            **callbacks: Any,
        ) -> Batcher:
            supervision = Supervision(backoff_s=0.0001, attempts=attempts)
            spec = EngineSpec(create, workers, max_batch_tokens, pipeline_depth, supervision)
            stage.open, stage.engines = 0, workers
            batcher = Batcher(spec, max_wait_s, now, **callbacks)
            closing.push_async_callback(batcher.close)
            closing.callback(stage.release)
            await batcher.start()
            stage.is_warm = True
            return batcher

        yield started


@pytest.fixture
def settings(tmp_path: Path, redis_settings: dict[str, Any], free_port: Callable[[], int]) -> dict[str, Any]:
    """Of a service on free ports and the test's empty Valkey."""
    return {
        "redis_host": redis_settings["host"],
        "redis_port": redis_settings["port"],
        "redis_password": redis_settings["password"],
        "redis_timeout_s": 60,
        "events_journal_dir": tmp_path / "journal",
        "inference_port": free_port(),
        "inference_ops_port": free_port(),
        "inference_workers": 1,
    }


@pytest.fixture
def recorded(redis_settings: dict[str, Any]) -> Callable[[int], Awaitable[list[dict[str, Any]]]]:
    """Call it with a number for all events on the stream, once there are so many.

    An event that is there twice counts once: the stream promises at least once.
    """

    async def events(at_least: int) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        async with Redis(**redis_settings, decode_responses=True) as client, asyncio.timeout(60):
            redis: Any = client
            last = "0"
            while len(found) < at_least:
                for _, entries in await redis.xread({STREAM: last}, block=1000):
                    for event in (json.loads(fields[EVENT_FIELD]) for _, fields in entries):
                        found.setdefault(event["id"], event)
                    last = entries[-1][0]
        return list(found.values())

    return events


@pytest.fixture
def recorded_refusals(recorded: Any) -> Callable[[int], Awaitable[Counter[tuple[str, str]]]]:
    """Call it with a number for the refused texts by route and outcome, once they are so many.

    They are written once a second, so those of one moment may be in two events.
    """

    async def refusals(texts: int) -> Counter[tuple[str, str]]:
        events: list[dict[str, Any]] = []
        while True:
            events = await recorded(len(events) + 1)
            found: Counter[tuple[str, str]] = Counter()
            for event in events:
                if event["kind"] == "counter":
                    found[event["route"], event["outcome"]] += event["n"]
            if found.total() >= texts:
                return found

    return refusals


class _Server(BaseTestServer):
    """The service's own runner, as in production, on a port that the test's client knows."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    async def _make_runner(self, **_: Any) -> Runner:
        return create_runner(self._service)


@pytest.fixture
async def start(stage: Any, settings: dict[str, Any]) -> AsyncIterator[Callable[..., Any]]:
    """Call it with settings for a client of the running service; `client.service` is the service."""
    async with AsyncExitStack() as closing:

        async def started(**changed: Any) -> TestClient[Any, Any]:
            service: Service = create_service(InferenceSettings(**{**settings, **changed}), stage.plan)
            server = _Server(service)
            client: TestClient[Any, Any] = await closing.enter_async_context(TestClient(server))
            client.service = service  # type: ignore[attr-defined]
            stage.is_warm = True
            return client

        yield started
        stage.release()

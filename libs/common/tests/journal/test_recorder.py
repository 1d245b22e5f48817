"""Recording: events on disk, a full journal that refuses or drops, and hashed addresses."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis
from structlog.testing import capture_logs

from common.contracts.events import EVENT_ADAPTER, EVENT_FIELD, STREAM, CounterEvent
from common.http.context import uuid7
from common.journal.journal import Journal, JournalFull
from common.journal.publisher import Publisher
from common.journal.recorder import ClientHasher, Recorder, WhenFull, open_recorder
from common.runtime.settings import RedisSettings, StartError
from common.stores.redis import create_client
from launcher.valkey import Valkey


def event(number: int = 1) -> CounterEvent:
    return CounterEvent(id=uuid7(), at_us=number, route="/predict", outcome="limited", n=1)


def settings(port: int, password: str = "") -> RedisSettings:
    values = {"redis_host": "127.0.0.1", "redis_port": port, "redis_password": password, "redis_timeout_s": 60}
    return RedisSettings.model_validate(values)


@pytest.fixture
async def redis(redis_url: str, valkey: Valkey) -> AsyncIterator[Redis]:
    client = create_client(settings(valkey.port, valkey.password))
    yield client
    await client.aclose()


@pytest.fixture
async def absent_redis(free_port: Any) -> AsyncIterator[Redis]:
    client = create_client(settings(free_port()))
    yield client
    await client.aclose()


def limited(root: Path, redis: Redis, when_full: WhenFull) -> tuple[Recorder, Journal, CollectorRegistry]:
    registry, journal = CollectorRegistry(), Journal(root, max_bytes=1 << 16)
    journal.open()
    return Recorder(journal, Publisher(journal, redis, registry), when_full, registry), journal, registry


async def test_recorded_events__reach_the_stream_and_read_back_equal(tmp_path: Path, redis: Redis) -> None:
    events = [event(number) for number in range(100)]
    opened = open_recorder(Journal(tmp_path), redis, when_full="refuse", registry=CollectorRegistry(), drain_s=60)
    async with opened as recorder:
        recorder.record(events[:60])
        recorder.record(events[60:])
    entries: Any = await redis.xrange(STREAM)
    assert [EVENT_ADAPTER.validate_json(fields[EVENT_FIELD]) for _, fields in entries] == events
    assert "null" not in json.dumps([fields for _, fields in entries])


async def test_recorder_without_redis__is_degraded_and_keeps_the_events(tmp_path: Path, absent_redis: Redis) -> None:
    journal = Journal(tmp_path)
    opened = open_recorder(journal, absent_redis, when_full="refuse", registry=CollectorRegistry(), drain_s=0.5)
    async with opened as recorder:
        recorder.record([event()])
        async with asyncio.timeout(60):
            while await recorder.state() != "degraded":
                await asyncio.sleep(0.01)
    successor = Journal(tmp_path)
    successor.open()
    chunk = successor.next_chunk()
    assert chunk is not None
    assert len(chunk.payloads) == 1
    successor.close()


async def test_recorder_with_a_silent_server__closes_within_its_drain_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = create_client(settings(silent.getsockname()[1]))
        registry = CollectorRegistry()
        async with asyncio.timeout(20):
            async with open_recorder(
                Journal(tmp_path), client, when_full="refuse", registry=registry, drain_s=0.3
            ) as recorder:
                recorder.record([event()])
        await client.aclose()


async def test_unusable_journal_folder__stops_the_start_and_names_the_cure(tmp_path: Path, absent_redis: Redis) -> None:
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file")
    with pytest.raises(StartError, match=r"File exists.*EVENTS_JOURNAL_DIR"):
        async with open_recorder(journal, absent_redis, when_full="refuse", registry=CollectorRegistry(), drain_s=0.5):
            pass


async def test_full_journal__refuses_by_default_and_recovers(tmp_path: Path, absent_redis: Redis) -> None:
    refusing, journal, registry = limited(tmp_path, absent_redis, "refuse")
    with capture_logs() as logs:
        with pytest.raises(JournalFull):
            while True:
                refusing.record([event()])
        with pytest.raises(JournalFull):
            refusing.record([event()])
    assert [line["event"] for line in logs] == ["journal full"]
    assert refusing.is_full
    assert registry.get_sample_value("sluice_events_dropped_total") == 0
    chunk = journal.next_chunk()
    assert chunk is not None
    journal.mark_published(chunk, len(chunk.ids))
    refusing.record([event()])
    assert not refusing.is_full
    journal.close()


async def test_full_journal__drops_and_counts_if_configured(tmp_path: Path, absent_redis: Redis) -> None:
    dropping, journal, registry = limited(tmp_path, absent_redis, "drop")
    for _ in range(500):
        dropping.record([event(), event()])
    recorded = registry.get_sample_value("sluice_events_recorded_total") or 0
    dropped = registry.get_sample_value("sluice_events_dropped_total") or 0
    assert 0 < recorded < 1000
    assert recorded + dropped == 1000
    assert dropping.is_full
    journal.close()


def test_client_hash__is_keyed_stable_and_short() -> None:
    hashed = ClientHasher("key")("192.0.2.1")
    assert hashed == ClientHasher("key")("192.0.2.1")
    assert hashed != ClientHasher("other")("192.0.2.1")
    assert hashed is not None
    assert re.fullmatch("[0-9a-f]{32}", hashed)


def test_client_hash__of_invalid_utf_8_exists() -> None:
    """Python decodes invalid UTF-8 in headers to surrogates."""
    assert ClientHasher("key")(b"\xff".decode(errors="surrogateescape")) is not None


@pytest.mark.parametrize(("key", "address"), [("", "192.0.2.1"), ("key", None), ("key", "")])
def test_client_hash_without_key_or_address__is_none(key: str, address: str | None) -> None:
    assert ClientHasher(key)(address) is None

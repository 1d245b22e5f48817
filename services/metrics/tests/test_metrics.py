"""What Prometheus is told of latency: classic buckets that are sums of the stored grid's bins."""

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from metrics.ingest.writer import EventWriter
from metrics.metrics import LatencyHistogram
from metrics.storage.database import Database

BUCKET = "sluice_prediction_latency_seconds_bucket"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.mark.parametrize("latency_us", [0, 1, 128, 129, 1_024, 1_025, 33_554_432, 33_554_433, (1 << 31) - 1])
async def test_prediction__is_in_every_bucket_at_or_above_its_latency(
    database: Database, prediction: Callable[..., Any], registry: CollectorRegistry, latency_us: int
) -> None:
    histogram = LatencyHistogram(registry)
    events = [prediction(latency_us=latency_us), prediction(outcome="error", label=None)]
    for _ in range(2):
        written = await EventWriter(database).write(events)
        histogram.add(written.octaves, written.latency_sum_us)
    for octave in range(7, 26):
        bound = repr(2**octave / 1_000_000)
        assert registry.get_sample_value(BUCKET, {"le": bound}) == (latency_us <= 2**octave)
    assert registry.get_sample_value(BUCKET, {"le": "+Inf"}) == 1
    assert registry.get_sample_value("sluice_prediction_latency_seconds_sum") == latency_us / 1_000_000


def test_empty_histogram__can_be_scraped(registry: CollectorRegistry) -> None:
    LatencyHistogram(registry)
    text: bytes = generate_latest(registry)  # type: ignore[no-untyped-call]  # the library lacks this annotation
    assert b'le="0.000128"' in text

"""Counters of our own are shown as those of `prometheus_client` are."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from common.runtime.counters import Counts, Spreads

BOUNDS = (0.001, 0.25, 1.0, 2.5)


def _lines(registry: CollectorRegistry) -> list[bytes]:
    """What is shown, but for when a series was made, which only the library tells."""
    return [line for line in generate_latest(registry).splitlines() if b"_created" not in line]


def test_counts__are_shown_like_the_library_s() -> None:
    ours, theirs = CollectorRegistry(auto_describe=True), CollectorRegistry(auto_describe=True)
    counts = Counts("things", "Things.", ["route", "status"], ours)
    counter = Counter("things", "Things.", ["route", "status"], registry=theirs)
    for labels in (("/a", 200), ("/a", 200), ('/"b"\n', 503)):
        counts.add(*labels)
        counter.labels(*labels).inc()
    counts.add("/a", 503, n=7)
    counter.labels("/a", 503).inc(7)
    assert _lines(ours) == _lines(theirs)


def test_spreads__are_shown_like_the_library_s() -> None:
    ours, theirs = CollectorRegistry(auto_describe=True), CollectorRegistry(auto_describe=True)
    spreads = Spreads("took_seconds", "Took.", BOUNDS, ours, ["route"])
    histogram = Histogram("took_seconds", "Took.", ["route"], buckets=BOUNDS, registry=theirs)
    for value in (0.0, 0.001, 0.0011, 0.25, 2.5, 2.6, 100.0):
        spreads.at("/a").observe(value)
        histogram.labels("/a").observe(value)
    spreads.at("/never")
    histogram.labels("/never")
    assert _lines(ours) == _lines(theirs)


def test_two_of_one_name__are_refused() -> None:
    registry = CollectorRegistry(auto_describe=True)
    Counts("things", "Things.", [], registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        Counts("things", "Things.", [], registry)

"""Prometheus metrics of the edge's own work."""

from collections.abc import Callable, Iterator
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from common.runtime.metrics import LATENCY_BUCKETS_S

DECISION_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class EdgeMetrics:
    """Decisions by policy, outcome and source; batches; the store's state; calls to upstreams."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        decisions = Counter(
            "sluice_edge_decisions", "Limit decisions.", ["policy", "outcome", "source"], registry=registry
        )
        self.decisions = cache(decisions.labels)
        self._refused = Counter(
            "sluice_edge_connections_refused",
            "Connections closed at once (full, or a share), or with answers that were not read (unread).",
            ["reason"],
            registry=registry,
        )
        self._counters_dropped = Counter(
            "sluice_edge_counters_dropped",
            "Counts of rejected requests dropped because Redis was down: per second, route, policy and outcome.",
            registry=registry,
        )
        self.batch_keys = Histogram(
            "sluice_edge_batch_keys", "Keys decided by one statement.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.wait_s = Histogram(
            "sluice_edge_decision_seconds",
            "From the question to the store's answer, waiting included: the slowest decision of each statement.",
            buckets=DECISION_BUCKETS_S,
            registry=registry,
        )
        self._store_up = Gauge("sluice_edge_store_up", "1 while limits are exact over all replicas.", registry=registry)
        self._replicas = Gauge("sluice_edge_replicas", "Edge processes on this database.", registry=registry)
        self._upstream = Histogram(
            "sluice_edge_upstream_seconds",
            "Time from sending a request to the head of its answer.",
            ["upstream"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._in_flight = Gauge(
            "sluice_edge_upstream_in_flight", "Requests on their way to an upstream.", ["upstream"], registry=registry
        )

    def connection_refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def counters_dropped(self, counters: int) -> None:
        self._counters_dropped.inc(counters)

    def watch_store(self, is_up: Callable[[], bool], replicas: Callable[[], int]) -> None:
        """Read these at each scrape."""
        self._store_up.set_function(lambda: float(is_up()))
        self._replicas.set_function(replicas)

    def watch_upstream(self, name: str, in_flight: Callable[[], int]) -> None:
        """Read the calls in flight at each scrape."""
        self._in_flight.labels(name).set_function(in_flight)

    def watch_bytes(self, read: Callable[[], tuple[int, int]]) -> None:
        """Read what clients sent and were sent at each scrape: counting it there costs a request nothing."""
        self._registry.register(_Bytes(read))

    def watch_room(self, held_bytes: Callable[[], int]) -> None:
        """Read what bodies take at each scrape."""
        told = "Bytes of clients' bodies and waiting heads in memory; past EDGE_BODY_MEMORY_BYTES what comes gets 503."
        Gauge("sluice_edge_body_bytes", told, registry=self._registry).set_function(held_bytes)

    def upstream_observer(self, name: str) -> Callable[[float], None]:
        """What one upstream's latencies go to."""
        return self._upstream.labels(name).observe


class _Bytes(Collector):
    def __init__(self, read: Callable[[], tuple[int, int]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("sluice_edge_bytes", "Bytes from and to clients.", labels=["direction"])
        for direction, count in zip(("in", "out"), self._read(), strict=True):
            family.add_metric([direction], count)
        yield family

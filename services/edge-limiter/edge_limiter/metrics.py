"""Prometheus metrics of the edge's own work."""

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from common.runtime.metrics import LATENCY_BUCKETS_S

DECISION_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)


class EdgeMetrics:
    """The edge's metrics. `decisions` caches its labelled children: `labels` would validate and lock every time."""

    def __init__(self, registry: CollectorRegistry) -> None:
        decisions = Counter(
            "sluice_edge_decisions", "Limit decisions.", ["policy", "outcome", "source"], registry=registry
        )
        self.decisions = cache(decisions.labels)
        self._refused = Counter(
            "sluice_edge_connections_refused",
            "Connections closed at once: all are taken (full), or the client's share (share).",
            ["reason"],
            registry=registry,
        )
        self.wait_s = Histogram(
            "sluice_edge_decision_seconds",
            "Time to decide, including waiting: the slowest decision of each statement.",
            buckets=DECISION_BUCKETS_S,
            registry=registry,
        )
        self.store_up = Gauge("sluice_edge_store_up", "1 while limits are exact over all replicas.", registry=registry)
        self.replicas = Gauge("sluice_edge_replicas", "Edge processes on this database.", registry=registry)
        self.body_bytes = Gauge(
            "sluice_edge_body_bytes",
            "Bytes of requests, and of unread responses, in memory. Above EDGE_BODY_MEMORY_BYTES, requests get 503.",
            registry=registry,
        )
        self.upstream_s = Histogram(
            "sluice_edge_upstream_seconds",
            "Time from sending a request to the head of its response.",
            ["upstream"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.upstream_in_flight = Gauge(
            "sluice_edge_upstream_in_flight", "Requests in flight to an upstream.", ["upstream"], registry=registry
        )

    def connection_refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

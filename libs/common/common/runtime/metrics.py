"""Prometheus metrics of the HTTP door."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from common.runtime.counters import Counts, Spreads

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a client may send any word


def create_registry() -> CollectorRegistry:
    """A registry of this app's own, so that two apps in one process (as in tests) don't collide."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class HttpMetrics:
    """Requests by route, method and status, their duration, and those in flight."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counts("sluice_http_requests", "Requests answered.", ["route", "method", "status"], registry)
        self._seconds = Spreads(
            "sluice_http_request_seconds",
            "Time from request head to response end.",
            LATENCY_BUCKETS_S,
            registry,
            ["route"],
        )
        self.in_flight = 0
        self._shown = Gauge("sluice_http_requests_in_flight", "Requests being handled.", registry=registry)
        self.watch(lambda: self.in_flight)

    def watch(self, in_flight: Callable[[], int]) -> None:
        """Read at each scrape how many requests are being handled, where somebody else counts them."""
        self._shown.set_function(in_flight)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request. `route` is the pattern, never the path: labels stay bounded."""
        self._requests.add(route, method if method in _METHODS else "OTHER", status)
        self._seconds.at(route).observe(seconds)

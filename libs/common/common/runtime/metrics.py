"""The metrics registry of a service, and the metrics of its HTTP requests.

The label values of a request repeat, so each metric caches its labelled children: `labels` would validate and lock
every time.
"""

from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # clients may send any method


def create_registry() -> CollectorRegistry:
    """Return a new registry with the metrics of the process. Each app has its own, so two can share a process."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


class HttpMetrics:
    """Requests by route, method and status, their duration, and those in flight."""

    def __init__(self, registry: CollectorRegistry) -> None:
        requests = Counter(
            "sluice_http_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        seconds = Histogram(
            "sluice_http_request_seconds",
            "Time from request head to response end.",
            ["route"],
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._requests = cache(requests.labels)
        self._seconds = cache(seconds.labels)
        self.in_flight = 0
        self._shown = Gauge("sluice_http_requests_in_flight", "Requests being handled.", registry=registry)
        self.watch(lambda: self.in_flight)

    def watch(self, in_flight: Callable[[], int]) -> None:
        """Call `in_flight` at each scrape instead of showing the attribute `in_flight`."""
        self._shown.set_function(in_flight)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request. `route` is the pattern, never the path, so the number of labels is bounded."""
        self._requests(route, method if method in _METHODS else "OTHER", status).inc()
        self._seconds(route).observe(seconds)

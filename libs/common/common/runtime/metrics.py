"""The metrics registry of a service, and metrics of its event loop and its HTTP requests.

The label values of a request repeat, so each metric caches its labelled children: `labels` would validate and lock
every time.
"""

import asyncio
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # clients may send any method


def create_registry() -> CollectorRegistry:
    """Return a new registry with the metrics of the process. Each app has its own, so two can share a process."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    Info("sluice_build", "Version of this service.", registry=registry).info({"version": version("sluice-common")})
    return registry


class LoopMetrics:
    """Tasks of the running event loop, and how late its timers fire. A task that is never awaited is a leak."""

    def __init__(self, registry: CollectorRegistry, timer_s: float = 0.5) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._timer_s = timer_s
        self._lag_s = 0.0
        self._timer = loop.call_later(timer_s, self._tick, loop.time() + timer_s)
        tasks = Gauge("sluice_loop_tasks", "Tasks of the event loop that have not ended.", registry=registry)
        tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        lag = Gauge("sluice_loop_lag_seconds", "Largest delay of a timer since the last scrape.", registry=registry)
        lag.set_function(self._largest_lag_s)

    def close(self) -> None:
        self._timer.cancel()

    def _tick(self, due_s: float) -> None:
        now_s = self._loop.time()
        self._lag_s = max(self._lag_s, now_s - due_s)
        self._timer = self._loop.call_later(self._timer_s, self._tick, now_s + self._timer_s)

    def _largest_lag_s(self) -> float:
        lag_s, self._lag_s = self._lag_s, 0.0
        return lag_s


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

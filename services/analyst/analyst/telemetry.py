"""What the analyst counts for Prometheus; label values are from fixed lists."""

from collections.abc import Callable
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from analyst.report import CacheState, Report

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class AnalystMetrics:
    """Reports served by cache state, reports made by source, requests that wait, and time to an answer."""

    def __init__(self, registry: CollectorRegistry, waiting: Callable[[], int]) -> None:
        served = Counter("sluice_analyst_reports", "Reports served.", ["cache"], registry=registry)
        made = Counter("sluice_analyst_reports_made", "Reports computed.", ["source"], registry=registry)
        fallbacks = Counter("sluice_analyst_fallbacks", "Reports made by rules.", ["reason"], registry=registry)
        seconds = Histogram(
            "sluice_analyst_report_seconds", "Time to a report.", ["cache"], buckets=_BUCKETS_S, registry=registry
        )
        waiters = Gauge("sluice_analyst_flight_waiters", "Requests waiting for a flight.", registry=registry)
        waiters.set_function(waiting)
        self._served = lru_cache(maxsize=8)(served.labels)
        self._made = lru_cache(maxsize=4)(made.labels)
        self._fallbacks = lru_cache(maxsize=16)(fallbacks.labels)
        self._seconds = lru_cache(maxsize=8)(seconds.labels)

    def report_served(self, cache: CacheState, seconds: float) -> None:
        self._served(cache).inc()
        self._seconds(cache).observe(seconds)

    def report_made(self, report: Report) -> None:
        self._made(report.source).inc()
        if report.fallback_reason is not None:
            self._fallbacks(report.fallback_reason).inc()

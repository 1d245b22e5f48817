"""Prometheus metrics of the analyst. Label values are from fixed lists."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from analyst.report.models import Report

_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class AnalystMetrics:
    """Reports served and computed, model calls and those avoided, and the quota left."""

    def __init__(self, registry: CollectorRegistry, waiting: Callable[[], int], quota_left: Callable[[], int]) -> None:
        self._served = Counter("sluice_analyst_reports", "Reports served.", ["cache"], registry=registry)
        self._made = Counter("sluice_analyst_reports_made", "Reports computed.", ["source"], registry=registry)
        self._fallbacks = Counter("sluice_analyst_fallbacks", "Rule-based reports.", ["reason"], registry=registry)
        self._calls = Counter(
            "sluice_analyst_model_calls", "Attempts to call the model.", ["outcome"], registry=registry
        )
        self._seconds = Histogram(
            "sluice_analyst_report_seconds", "Time to a report.", ["cache"], buckets=_BUCKETS_S, registry=registry
        )
        waiters = Gauge("sluice_analyst_flight_waiters", "Requests waiting for a computation.", registry=registry)
        waiters.set_function(waiting)
        left = Gauge(
            "sluice_analyst_quota_left", "Model calls left in the window, as last reported.", registry=registry
        )
        left.set_function(quota_left)
        self._avoided = Counter(
            "sluice_analyst_model_calls_avoided", "AI reports served without another call.", registry=registry
        )
        self._without_drift = Counter(
            "sluice_analyst_reports_without_drift", "Reports computed without drift.", registry=registry
        )
        self.lost = Counter("sluice_analyst_reports_not_stored", "Reports that could not be stored.", registry=registry)

    def report_served(self, report: Report, is_shared: bool, seconds: float) -> None:
        self._served.labels(report.cache).inc()
        self._seconds.labels(report.cache).observe(seconds)
        if is_shared and report.source == "ai":
            self._avoided.inc()

    def report_made(self, report: Report) -> None:
        self._made.labels(report.source).inc()
        if report.windows.drift_reference is None:
            self._without_drift.inc()
        if report.fallback_reason is not None:
            self._fallbacks.labels(report.fallback_reason).inc()

    def attempt_ended(self, outcome: str) -> None:
        self._calls.labels(outcome).inc()

"""HTTP metrics: counted by pattern, and two apps in one process keep theirs apart."""

from prometheus_client.openmetrics.exposition import generate_latest

from common.runtime.metrics import HttpMetrics, create_registry


def test_requests__are_counted_by_route_method_and_status() -> None:
    registry = create_registry()
    metrics = HttpMetrics(registry)
    for status in (200, 200, 503):
        metrics.observe("/predict", "POST", status, 0.02)
    labels = {"route": "/predict", "method": "POST", "status": "200"}
    assert registry.get_sample_value("sluice_http_requests_total", labels) == 2
    assert registry.get_sample_value("sluice_http_request_seconds_count", {"route": "/predict"}) == 3
    assert registry.get_sample_value("sluice_http_request_seconds_bucket", {"route": "/predict", "le": "0.025"}) == 3


def test_two_registries__do_not_collide() -> None:
    first, second = create_registry(), create_registry()
    HttpMetrics(first).observe("/", "GET", 200, 1.0)
    HttpMetrics(second)
    assert b'sluice_http_requests_total{method="GET"' in generate_latest(first)  # type: ignore[no-untyped-call]
    assert b'method="GET"' not in generate_latest(second)  # type: ignore[no-untyped-call]


def test_unknown_method__is_counted_as_other() -> None:
    registry = create_registry()
    HttpMetrics(registry).observe("/", "HUNTER2", 405, 0.0)
    labels = {"route": "/", "method": "OTHER", "status": "405"}
    assert registry.get_sample_value("sluice_http_requests_total", labels) == 1

import pytest

from edge_limiter.proxy.routes import ROUTES, BadTarget, RouteTable, parse_target

TABLE = RouteTable(ROUTES)


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/", "/"),
        ("/predict", "/predict"),
        ("/predict/", "/predict/"),
        ("/%70redict", "/predict"),
        ("/models/a%20b", "/models/a%20b"),
        ("/models/%c3%a9", "/models/%C3%A9"),
        ("/models/a:b@c", "/models/a:b@c"),
        ("/docs/swagger.css", "/docs/swagger.css"),
        ("/models/..x", "/models/..x"),
    ],
)
def test_plain_path__is_normalised(raw: str, path: str) -> None:
    assert parse_target(raw).path == path


def test_query__is_kept_as_it_was_sent() -> None:
    assert parse_target("/metrics/count?a=%2F..//&b=[x]").path_and_query == "/metrics/count?a=%2F..//&b=[x]"


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "*",
        "predict",
        "http://evil/predict",
        "//evil/predict",
        "/predict//batch",
        "/predict%2Fbatch",
        "/predict%5cbatch",
        "/predict\\batch",
        "/metrics/../predict",
        "/metrics/./predict",
        "/metrics/..",
        "/metrics/%2e%2e/predict",
        "/metrics/%252e%252e/predict",
        "/metrics/..%2fpredict",
        "/metrics/.%2e/predict",
        "/predict%00",
        "/predict%0d%0aX:y",
        "/predict%3fx",
        "/predict%23x",
        "/predict%3bx",
        "/predict%7f",
        "/predict#x",
        "/predict%",
        "/predict%4",
        "/predict%zz",
        "/predict x",
        "/prédict",
        "/predict\udcff",
        "/predict\t",
        "/predict?x#y",
        "/predict?x y",
        "/predict?\udcff",
        "/predict?é",
    ],
)
def test_target_that_two_parsers_could_read_differently__is_refused(raw: str) -> None:
    with pytest.raises(BadTarget):
        parse_target(raw)


@pytest.mark.parametrize(
    ("method", "path", "service", "policy", "cost", "needs_admin"),
    [
        ("POST", "/predict", "inference", "predict", "one", False),
        ("POST", "/predict/batch", "inference", "predict", "texts", False),
        ("POST", "/models/bundled", "inference", "predict", "inputs", False),
        ("POST", "/v2/models/bundled/infer", "inference", "predict", "tensor", False),
        ("POST", "/v2/models/bundled/versions/1/infer", "inference", "predict", "tensor", False),
        ("POST", "/classify", "inference", "predict", "input", False),
        ("POST", "/v1/classify", "inference", "predict", "input", False),
        ("POST", "/v1/moderations", "inference", "predict", "input", False),
        ("POST", "/v1/models/bundled:predict", "inference", "predict", "instances", False),
        ("POST", "/v1/models/bundled%3Apredict", "inference", "predict", "instances", False),
        ("POST", "/v1/anything/new", "inference", "predict", "one", False),
        ("GET", "/v1/models/bundled", "inference", None, "one", False),
        ("POST", "/predict/", "inference", "predict", "one", False),
        ("POST", "/predict/anything/new", "inference", "predict", "one", False),
        ("PUT", "/v2/repository", "inference", "predict", "one", False),
        ("GET", "/models", "inference", None, "one", False),
        ("GET", "/v2/health/ready", "inference", None, "one", False),
        ("HEAD", "/predict", "inference", None, "one", False),
        ("GET", "/metrics/count", "metrics", "metrics", "one", False),
        ("POST", "/metrics/aggregated", "metrics", "metrics", "one", False),
        ("GET", "/metrics/thresholds", "metrics", "metrics", "one", False),
        ("PUT", "/metrics/thresholds", "metrics", "metrics", "one", True),
        ("GET", "/metrics/thresholds/history", "metrics", "metrics", "one", False),
        ("DELETE", "/metrics/anything", "metrics", "metrics", "one", True),
        ("GET", "/metrics/predictions", "metrics", "metrics", "one", True),
        ("POST", "/metrics/feedback", "metrics", "metrics", "one", True),
        ("GET", "/metrics/predictions/export", "metrics", "metrics", "one", True),
        ("GET", "/dashboard", "metrics", None, "one", False),
        ("GET", "/dashboard/app.js", "metrics", None, "one", False),
        ("POST", "/analyze/performance", "analyst", "analyze", "one", False),
        ("DELETE", "/analyze/cache", "analyst", None, "one", True),
        ("GET", "/analyze/reports", "analyst", None, "one", True),
        ("GET", "/analyze/reports/7", "analyst", None, "one", True),
    ],
)
def test_route__goes_to_its_service_under_its_policy(
    method: str, path: str, service: str, policy: str | None, cost: str, needs_admin: bool
) -> None:
    route = TABLE.match(method, path)
    assert route is not None
    assert (route.service, route.policy, route.cost, route.needs_admin) == (service, policy, cost, needs_admin)


@pytest.mark.parametrize("path", ["/", "/predictions", "/metricsx", "/predict;x", "/admin", "/livez"])
def test_path_of_no_service__is_not_routed(path: str) -> None:
    assert TABLE.match("GET", path) is None


def test_route_names__fit_an_event() -> None:
    assert all(len(route.pattern) <= 64 for route in ROUTES)

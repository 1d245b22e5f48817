"""The public surface: which path goes to which service, under which policy, at what cost, and what needs the token."""

from typing import Final

from edge_limiter.proxy.routing import READS, Route

INFERENCE: Final = "inference"
METRICS: Final = "metrics"
ANALYST: Final = "analyst"

_POST: Final = frozenset({"POST"})
_WRITES: Final = frozenset({"PUT", "DELETE", "PATCH"})

ROUTES: Final = (
    Route("/predict", INFERENCE, _POST, policy="predict"),
    Route("/predict/batch", INFERENCE, _POST, policy="predict", cost="texts"),
    Route("/models/{model}", INFERENCE, _POST, policy="predict", cost="inputs"),
    Route("/v2/models/{model}/infer", INFERENCE, _POST, policy="predict", cost="tensor"),
    Route("/v2/models/{model}/versions/{version}/infer", INFERENCE, _POST, policy="predict", cost="tensor"),
    # Whatever else is sent to inference is limited too: a route that is added there is not a way around.
    *(Route(path, INFERENCE, READS, prefix=True) for path in ("/predict", "/models", "/v2")),
    *(Route(path, INFERENCE, prefix=True, policy="predict") for path in ("/predict", "/models", "/v2")),
    Route("/metrics/predictions", METRICS, prefix=True, policy="metrics", needs_admin=True),
    Route("/metrics", METRICS, _WRITES, prefix=True, policy="metrics", needs_admin=True),
    # An open dashboard sends 16 requests a minute here, and up to 36 while its stream cannot connect.
    Route("/metrics", METRICS, prefix=True, policy="metrics"),
    Route("/dashboard", METRICS, READS, prefix=True),
    Route("/analyze/performance", ANALYST, _POST, policy="analyze"),
    Route("/analyze/reports", ANALYST, prefix=True, needs_admin=True),
    Route("/analyze", ANALYST, _WRITES, prefix=True, needs_admin=True),
    Route("/analyze", ANALYST, prefix=True),
)
